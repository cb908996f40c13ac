"""What runs artifacts on a board and on the host: standard library and the runtime only, Python >= 3.8."""
