"""What JAX is to do here, whatever the program around it has set."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from typing import Any, TypeVar

import jax

from recsys_jax.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

full_precision: Callable[[F], F] = jax.default_matmul_precision("highest")
"""A decorator to stand below `jax.jit`, since it matters when a function is compiled.

On recent GPUs JAX would round the inputs of products to 10 bits (TF32): the processor's scores then differ in the third
digit, and so do the lists.
"""

_used = _forked = False


def _after_fork() -> None:
    global _forked
    _forked = _used


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def _compute_here() -> None:
    """Notes that JAX computes in this process. Raises `InputError` where it cannot, as `own_settings` says."""
    global _used
    if _forked:
        raise InputError(
            "found a process forked after its parent had trained or recommended with JAX, whose threads it lacks; "
            "allowed: threads, or processes started by spawn, forkserver or joblib, or forked before"
        )
    _used = True


def unforked(compiled: F) -> F:
    """A decorator to stand above `jax.jit`: `InputError` in a process where the call would never end."""

    @wraps(compiled)
    def call(*arguments: Any, **options: Any) -> Any:
        _compute_here()
        return compiled(*arguments, **options)

    return call  # type: ignore[return-value]


@contextmanager
def own_settings() -> Iterator[None]:
    """JAX's settings as this library is tested with, for this thread alone and until it is left; also a decorator.

    A program may compute in 64 bits, refuse implicit promotions and transfers, stop at every NaN, draw random numbers
    another way or be spread over a mesh: what is trained, and how it is ranked, does not depend on it.

    Raises `InputError` in a process that was forked from one that came by here: the threads that JAX waits for are the
    parent's.
    """
    _compute_here()
    with plain_settings():
        yield


@contextmanager
def plain_settings() -> Iterator[None]:
    """The settings of `own_settings`, for what asks JAX for shapes alone: no thread computes, so that a fork may."""
    with ExitStack() as stack:
        with suppress(ValueError):  # while a caller's own function is compiled, its mesh stays
            stack.enter_context(jax.set_mesh(None))
        for setting in (
            jax.enable_x64(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.threefry_partitionable(True),
            jax.transfer_guard("allow"),
        ):
            stack.enter_context(setting)
        yield
