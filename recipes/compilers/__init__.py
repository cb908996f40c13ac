"""Compilers: candidate -> artifact."""
