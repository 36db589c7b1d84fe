"""Looking for configurations: singular ones, twins with the same features, and soft manifolds."""
