"""Which frames of a pool are worth a calculation, before there are any labels."""
