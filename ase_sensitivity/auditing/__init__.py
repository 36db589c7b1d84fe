"""An audit of a descriptor: what it keeps of the contract, where it is blind, what it costs."""
