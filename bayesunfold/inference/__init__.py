"""How a posterior of the network weights is found."""
