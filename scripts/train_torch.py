"""`recsys-jax torch train`, from a checkout."""

from recsys_jax.cli import door

door("torch train")
