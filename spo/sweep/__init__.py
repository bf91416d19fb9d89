"""Many jobs as one: which there are, how each went, and what runs them. Imports no torch and no Hydra."""
