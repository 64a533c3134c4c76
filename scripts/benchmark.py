"""`recsys-jax benchmark`, from a checkout."""

from recsys_jax.cli import door

door("benchmark")
