"""Checks the annotations of the numerical modules while the tests run; `pyproject.toml` names it.

Where a module's task is to judge what people give it, wrong types are its input, and it is not checked.
"""

from beartype import BeartypeConf, beartype

# A whole number is a number: `float` admits `int`.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
