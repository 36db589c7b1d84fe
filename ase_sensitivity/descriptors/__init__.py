"""Descriptors and their Jacobians."""
