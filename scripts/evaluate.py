"""`recsys-jax evaluate`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
