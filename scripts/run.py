"""`recsys-jax run`, from a checkout."""

from recsys_jax.cli import door

door("run")
