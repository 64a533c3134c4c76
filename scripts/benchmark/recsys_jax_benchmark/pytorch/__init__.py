"""The system in PyTorch: as it is commonly written, and as fast as PyTorch runs it. Neither imports recsys_jax."""
