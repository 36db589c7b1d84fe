"""A scan as one page to look at, and as plots for papers."""
