"""`recsys-jax make-dataset`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["make-dataset", *sys.argv[1:]])
