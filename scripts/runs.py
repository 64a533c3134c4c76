"""`recsys-jax runs`, from a checkout."""

from recsys_jax.cli import door

door("runs")
