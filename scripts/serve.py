"""`recsys-jax serve`, from a checkout."""

from recsys_jax.cli import door

door("serve")
