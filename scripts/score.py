"""`recsys-jax score`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])
