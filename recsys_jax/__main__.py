"""`python -m recsys_jax`: the commands."""

from recsys_jax.cli import main

main()
