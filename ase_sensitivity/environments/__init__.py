"""Environments of many structures: their features, and the best match of two of them."""
