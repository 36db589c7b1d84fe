"""What the blindness of a descriptor does to a potential: models, molecules, pictures."""
