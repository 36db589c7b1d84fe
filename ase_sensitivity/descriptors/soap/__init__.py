"""SOAP: the same features as in QUIP, and other body orders, by compiled kernels."""
