"""A Bayesian classifier of two weighted samples; knows nothing of unfolding."""
