"""OmniFold: two classifiers in turn, and members coherent over iterations."""
