"""The W&B dashboard of a sweep, from its specification conf/dashboard.yaml. Imports neither torch nor wandb."""
