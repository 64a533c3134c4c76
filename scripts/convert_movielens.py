"""`recsys-jax dataset movielens`, from a checkout."""

from recsys_jax.cli import door

door("dataset movielens")
