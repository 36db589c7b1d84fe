"""QUIP's descriptors, through quippy."""
