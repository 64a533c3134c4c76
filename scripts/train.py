"""`recsys-jax train`, from a checkout."""

from recsys_jax.cli import door

door("train")
