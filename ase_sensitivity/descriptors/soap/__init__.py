"""SOAP: QUIP's features, and body orders beside it, by kernels of our own."""
