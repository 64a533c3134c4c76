"""`recsys-jax torch export`, from a checkout."""

from recsys_jax.cli import door

door("torch export")
