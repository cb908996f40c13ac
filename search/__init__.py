"""Search engine: space, candidates, goals, proposers. Pure: no torch, no input or output."""
