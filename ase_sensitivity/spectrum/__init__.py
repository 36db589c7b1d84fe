"""From a Jacobian to its singular values."""
