"""The benchmark, the PyTorch reference and its strongest form, and the peers; installed as `recsys_jax_benchmark`."""
