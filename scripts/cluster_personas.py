"""`recsys-jax personas`, from a checkout."""

from recsys_jax.cli import door

door("personas")
