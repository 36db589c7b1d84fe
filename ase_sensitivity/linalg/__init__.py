"""Eigenvectors: a few of a large operator, and one choice where several are right."""
