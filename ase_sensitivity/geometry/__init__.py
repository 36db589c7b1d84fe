"""Structures as points in space: neighbors, fragments, symmetry, best match of two."""
