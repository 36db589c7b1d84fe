"""The interface of a Jacobian, and Jacobians that consist of blocks."""
