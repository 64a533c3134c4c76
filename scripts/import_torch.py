"""`recsys-jax import-torch`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["import-torch", *sys.argv[1:]])
