"""Structures, energies and forces from files, and files that are written line by line."""
