"""A sweep's folder: which jobs it has, and how each went."""
