"""`recsys-jax dataset synthetic`, from a checkout."""

from recsys_jax.cli import door

door("dataset synthetic")
