"""`recsys-jax dataset movielens`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["dataset", "movielens", *sys.argv[1:]])
