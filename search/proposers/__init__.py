"""Proposers: each decides which candidate to measure next."""
