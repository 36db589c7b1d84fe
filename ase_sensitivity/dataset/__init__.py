"""What a fit on these features can never learn, found before the fit."""
