"""Kernels that TVM compiles as they are written: the tile is a parameter, and so is the width of the weights."""
