"""`recsys-jax compare`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
