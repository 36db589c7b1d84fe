"""Singular configurations: the distance to one, its cause, and a search for others."""
