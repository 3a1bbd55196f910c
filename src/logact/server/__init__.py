"""A log served over the network: who may do what by token, appends, reads, following, limits, metrics."""
