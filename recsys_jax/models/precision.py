"""Products of matrices in full float32, wherever they run."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with matrix products that round as float32 does.

    On recent GPUs JAX would round their inputs to 10 bits (TF32): the processor's scores then differ in the third
    digit, and so do the lists. It stands below `jax.jit`, since it matters when a function is compiled.
    """

    @wraps(function)
    def exact(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return exact
