"""What a trained policy is worth."""

DETERMINED = 2.0  # |z-score| of an orientation from which the rows say which way the index points
