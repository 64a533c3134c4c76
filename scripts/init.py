"""`recsys-jax init`, from a checkout."""

from recsys_jax.cli import door

door("init")
