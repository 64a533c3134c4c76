"""`recsys-jax score`, from a checkout."""

from recsys_jax.cli import door

door("score")
