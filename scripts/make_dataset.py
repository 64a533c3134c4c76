"""`recsys-jax dataset synthetic`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["dataset", "synthetic", *sys.argv[1:]])
