"""Which reference forces to look at first, as they do not fit to the others."""
