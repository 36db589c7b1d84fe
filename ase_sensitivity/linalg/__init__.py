"""Eigenvectors: a few of a large operator, and a fixed choice where they are not unique."""
