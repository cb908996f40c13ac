"""What is measured: latency on a board, accuracy of the very artifact, and the agent that runs it."""
