"""`recsys-jax run`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
