"""`recsys-jax torch export`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["torch", "export", *sys.argv[1:]])
