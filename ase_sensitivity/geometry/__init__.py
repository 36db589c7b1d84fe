"""Structures as points in space: neighbours, fragments, symmetry, best match."""
