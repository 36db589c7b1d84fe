"""QUIP's descriptors."""
