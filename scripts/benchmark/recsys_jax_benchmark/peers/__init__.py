"""Other recommenders on our splits, each in an environment of its own; `split` alone knows recsys_jax."""
