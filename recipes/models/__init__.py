"""The user's side: a network and its data, loaded in worker processes only."""
