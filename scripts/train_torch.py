"""`recsys-jax torch train`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["torch", "train", *sys.argv[1:]])
