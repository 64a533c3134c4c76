"""`recsys-jax torch import`, from a checkout."""

from recsys_jax.cli import door

door("torch import")
