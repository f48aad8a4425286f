"""Numbers that can be trusted: metrics with intervals, thresholds, calibration. NumPy only, no network."""
