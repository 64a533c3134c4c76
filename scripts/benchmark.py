"""`recsys-jax benchmark`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])
