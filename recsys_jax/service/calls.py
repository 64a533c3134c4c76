"""What can be asked: each path's JSON, and the call of the recommender that answers it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from recsys_jax.errors import InputError, choices, require, shown
from recsys_jax.serving.history import bought_columns
from recsys_jax.serving.ranking import by_column, column_named, not_known, stated_once
from recsys_jax.serving.recommender import Recommender


@dataclass(frozen=True)
class Limits:
    """What a request may ask at most."""

    body: int = 2**20
    """Bytes of a request's JSON."""
    rows: int = 1000
    """Customers of a batch."""
    top_n: int = 100
    """Products of a list."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value >= 1, name, value, "1 or more")


class Call(NamedTuple):
    """One path that is asked with JSON."""

    says: str
    keys: tuple[str, ...]
    required: tuple[str, ...] = ()
    answer: str = "products"
    """The key under which a list is answered."""


_LIST = ("top_n", "categories", "available", "strict", "diversity", "at_most", "pinned")
CALLS = {
    "/recommend": Call(
        "The best products for one customer, best first.",
        ("attributes", "customer_id", "purchased_products", *_LIST, "standing", "explain"),
    ),
    "/recommend/batch": Call(
        "The best products for each of several customers.",
        ("customers", "purchased_products", *_LIST),
        ("customers",),
        answer="lists",
    ),
    "/similar": Call(
        "The products that draw the same kind of customers.",
        ("product_id", "top_n", "categories", "available"),
        ("product_id",),
    ),
    "/explain": Call(
        "Why a product would be recommended to a customer, or would not.",
        ("product_id", "attributes", "customer_id"),
        ("product_id",),
        answer="",
    ),
    "/customers-like": Call(
        "The values of customers' attributes that a product draws above average.",
        ("product_id",),
        ("product_id",),
        answer="values",
    ),
}
FLAGS = ("strict", "standing", "explain")


def answer(rec: Recommender, path: str, asked: object, limits: Limits) -> dict[str, Any]:
    """What the recommender answers to a request's JSON; what is null counts as left out.

    Raises `InputError` as the recommender does, for keys that the path does not have, and beyond the limits.
    """
    call = CALLS[path]
    if not isinstance(asked, dict):
        raise InputError(f"{path}: found {shown(asked)}; allowed: an object with some of {choices(call.keys)}")
    stated = {name: value for name, value in asked.items() if name not in call.keys}
    known = [name for name in stated if column_named(name, rec.column_of) is not None]
    if known and "attributes" in call.keys:
        stated |= asked["attributes"] if isinstance(asked.get("attributes"), dict) else {}
        others = {name: value for name, value in asked.items() if name in call.keys and name != "attributes"}
        allowed = f"in them, as {json.dumps({'attributes': stated} | others, ensure_ascii=False)}"
        raise InputError(f"{path}: found the key {shown(known[0])} beside attributes; allowed: {allowed}")
    _refuse_unknown(asked, call.keys, path)
    given = {name: value for name, value in asked.items() if value is not None}
    for name in call.required:
        require(name in given, path, None, f"{name}, which is needed")
    for name in FLAGS:
        require(isinstance(given.get(name, False), bool), f"{path}, {name}", given.get(name), "true or false")
    top_n = given.get("top_n")
    if isinstance(top_n, int):  # what is no number, the recommender refuses
        require(top_n <= limits.top_n, f"{path}, top_n", top_n, f"a whole number from 1 to {limits.top_n:,}")
    if "customer_id" in given and rec.history is None:
        allowed = "none, as the service was started without --dataset or --purchases; attributes"
        require(False, f"{path}, customer_id", given["customer_id"], allowed)
    try:
        return _answered(rec, path, given, limits)
    except InputError as error:  # in the words of who asks over HTTP
        call_of = f"{path[1:].replace('/', '_').replace('-', '_')}()"
        said = str(error)
        raise InputError(path + said.removeprefix(call_of) if said.startswith(call_of) else said) from None


def _answered(rec: Recommender, path: str, given: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """What the recommender answers to what is given."""
    if path == "/explain":
        return rec.explain(given.pop("product_id"), **given)
    found: object
    notes: list[str] = []
    if path == "/recommend":
        found = rec.recommend(**given)
        notes = not_known(rec.model.customers, stated_once(given.get("attributes"), {}, rec.column_of, path))
    elif path == "/recommend/batch":
        rows = _customers(rec, given.pop("customers"), path, limits)
        found = rec.recommend_batch(rows, **given)
        for number, row in enumerate(rows, 1):
            notes += [f"row {number}, {note}" for note in not_known(rec.model.customers, row)]
    elif path == "/similar":
        found = rec.similar(given.pop("product_id"), **given)
    else:
        found = rec.customers_like(**given)
    return {CALLS[path].answer: found} | ({"notes": notes} if notes else {})


def columns(rec: Recommender) -> dict[str, str]:
    """What a customer of a batch may have beside attributes, and what it says."""
    schema = rec.model.schema
    ids = {} if rec.history is None else {schema.customers.id: "The customer's id, by which purchases are known."}
    return ids | dict.fromkeys(bought_columns(schema), "The ids of the products that the customer bought.")


def _customers(rec: Recommender, rows: object, path: str, limits: Limits) -> list[dict[str, Any]]:
    where = f"{path}, customers"
    fits = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    require(fits, where, rows, "a list of objects with attributes")
    assert isinstance(rows, list)
    require(len(rows) <= limits.rows, where, f"{len(rows):,} customers", f"{limits.rows:,} at once")
    allowed = tuple(dict.fromkeys([*(one.feature.column for one in rec.model.customers), *columns(rec)]))
    found = []
    for number, row in enumerate(rows, 1):
        meant = by_column(row, rec.model, rec.column_of, f"{where}, row {number}")
        _refuse_unknown(meant.values(), allowed, f"{where}, row {number}")
        found.append({meant[name]: value for name, value in row.items()})
    return found


def _refuse_unknown(found: Iterable[str], allowed: tuple[str, ...], where: str) -> None:
    for name in found:
        if name not in allowed:
            raise InputError(f"{where}: found the key {shown(name)}; allowed: {choices(allowed, found=name)}")
