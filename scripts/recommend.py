"""`recsys-jax recommend`, from a checkout."""

from recsys_jax.cli import door

door("recommend")
