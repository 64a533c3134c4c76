"""`recsys-jax convert-movielens`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["convert-movielens", *sys.argv[1:]])
