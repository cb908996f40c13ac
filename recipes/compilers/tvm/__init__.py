"""The compiler with kernels of our own, built on Apache TVM's Relax."""
