"""`recsys-jax evaluate`, from a checkout."""

from recsys_jax.cli import door

door("evaluate")
