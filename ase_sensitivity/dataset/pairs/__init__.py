"""Environments and structures that a descriptor takes for the same, and what that costs."""
