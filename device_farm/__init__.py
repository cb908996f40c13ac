"""Boards: inventory, transports, set-up. Knows nothing of models, bits or artifacts."""
