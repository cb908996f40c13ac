"""The adaptive proposer: sensitivity tables, a Bayesian latency model, a solver, and a choice between their answers."""
