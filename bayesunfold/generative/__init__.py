"""A generative map from detector level to particle level, and unfolding with it."""
