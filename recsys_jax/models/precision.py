"""Products of matrices in full float32, wherever they run."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])

full_precision: Callable[[F], F] = jax.default_matmul_precision("highest")
"""A decorator to stand below `jax.jit`, since it matters when a function is compiled.

On recent GPUs JAX would round the inputs of products to 10 bits (TF32): the processor's scores then differ in the third
digit, and so do the lists.
"""
