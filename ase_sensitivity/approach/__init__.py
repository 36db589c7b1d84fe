"""How near a singular configuration is, in which direction, and of which kind."""
