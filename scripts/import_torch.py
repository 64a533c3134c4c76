"""`recsys-jax torch import`, from a checkout."""

import sys

from recsys_jax.cli import main

if __name__ == "__main__":
    main(["torch", "import", *sys.argv[1:]])
