"""`recsys-jax compare`, from a checkout."""

from recsys_jax.cli import door

door("compare")
