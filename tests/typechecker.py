"""Checks the annotations of the numerical modules while the tests run; `pyproject.toml` names it.

Where a module's task is to judge what people give it, wrong types are its input, and it is not checked.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

# A whole number is a number: `float` admits `int`.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_with_shapes = jaxtyping.jaxtyped


def jaxtyped(checked: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """In place of jaxtyping's: where no annotation has a shape, types are checked alone, in 0.6 us rather than 10."""
    if checked is None:
        return partial(jaxtyped, typechecker=typechecker)
    if inspect.isfunction(checked):
        hints = checked.__annotations__.values()
        if not any(isinstance(hint, str) or "jaxtyping" in repr(hint) for hint in hints):
            return typechecker(checked)
    return _with_shapes(checked, typechecker=typechecker)


jaxtyping.jaxtyped = jaxtyped
