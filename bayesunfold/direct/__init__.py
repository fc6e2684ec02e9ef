"""The unfolded distribution as one posterior: unbinned fully Bayesian unfolding."""
