"""`recsys-jax recommend`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["recommend", *sys.argv[1:]])
