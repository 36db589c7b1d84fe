"""Singular configurations: how near one is, of which kind, and where others are."""
