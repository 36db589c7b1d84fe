"""The singular values of a Jacobian."""
