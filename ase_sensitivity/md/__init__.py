"""During a run: observer, log, calculator, bias."""
