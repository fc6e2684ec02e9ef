"""What every unbinned unfolding shares: standardised events, perturbations, members, systematics, the result."""
