"""Environments and structures that a descriptor does not distinguish, and the lost forces."""
