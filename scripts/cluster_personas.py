"""`recsys-jax personas`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["personas", *sys.argv[1:]])
