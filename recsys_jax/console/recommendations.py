"""Recommendations as a table, and the command that asks for some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from recsys_jax.console.places import following, made_customers
from recsys_jax.console.terminal import console
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.values import composed, split_keys
from recsys_jax.errors import require
from recsys_jax.serving.history import History
from recsys_jax.storage.runs import made_from


def example(run: Path, dataset: Dataset) -> str:
    """A command that recommends to the first customer."""
    stated = {}
    for feature in dataset.schema.customers.features:
        keys = split_keys(dataset.customers.column(feature.column)[0], None)
        if keys:
            stated[feature.column] = f"{feature.column}={','.join(keys)}"
    return following("recommend", run, *stated.values())


def shop_of(dataset: Path | None, run: Path) -> History | None:
    """What the dataset in a folder knows, if one is named, with the customers made of its reviews for this run."""
    return None if dataset is None else History.of(dataset, made_customers(dataset, run))


def limits(words: Sequence[str]) -> dict[str, int]:
    """By column, how many products with the same value: of words such as brand=2.

    Raises `InputError` for a word of another form, and for a column twice.
    """
    found: dict[str, int] = {}
    for word in words:
        name, _, most = composed(word).rpartition("=")
        whole = name != "" and name not in found and most.isascii() and most.isdigit()
        require(whole, "at_most", word, "each column once, as NAME=NUMBER")
        found[name] = int(most)
    return found


def nothing_left_out(
    run: Path, *, named: Path | None, repeats: bool, bought: bool, by_hand: str, more: str = "", made: bool = False
) -> str:
    """Why nothing was left out that customers bought: what was `named` knows none, or they buy products again.

    Or what they `bought` is no product of the model's. `by_hand` is what names products that are left out all the same,
    and all that does where customers are `made` of reviews, and nobody has an id.
    """
    names = by_hand if made else f"--dataset {made_from(run) or 'FOLDER'}{more}"
    why = f"no purchases are known; {names} would name them"
    if bought:
        why = "what they bought is the id of no product"
    elif repeats:
        why = f'by repeat = "allowed" in dataset.toml, they buy products again; {by_hand} names what to leave out'
    elif named is not None:
        why = f"{named} knows no purchases of theirs"
    return f"Nothing that customers bought was left out: {why}"


def show(found: Sequence[dict[str, Any]], title: str, but: str = "") -> None:
    """Recommendations as a table, and what its order and figures mean, `but` for what else orders them.

    Columns that the dataset does not have are left out.
    """
    columns = [name for name in ("brand", "category", "price") if any(one[name] is not None for one in found)]
    # What would be shown as nothing is not shown.
    added = [name for name in ("popularity", "boost") if any(abs(one[name]) >= 0.005 for one in found)]
    whole = all(isinstance(one["price"], int | None) for one in found)
    narrow: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, **narrow)
    table.add_column("")
    # Names may wrap where they are long; an id must stay in one piece, to be copied.
    short = all(cell_len(str(one["name"])) <= console.width // 4 for one in found)
    longest = max((len(one["product_id"]) for one in found), default=0)
    table.add_column("product", overflow="fold", min_width=longest, no_wrap=short)
    standing = {"percentile": "percentile"} if found and "percentile" in found[0] else {}
    if standing and found[0]["times_average"] is not None:
        standing = {"times_average": "× avg"}
    for name in [*columns, "score", *standing.values(), *added]:
        text = name in ("brand", "category")
        table.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for place, one in enumerate(found, 1):
        product = Text(f"{one['name']}\n" if one["name"] else "").append(one["product_id"], "dim")
        numbers = [f"{one['score']:.3f}", *(f"{one[name]:,.1f}" for name in standing)]
        numbers += [f"{one[name]:+.2f}" for name in added]
        table.add_row(str(place), product, *(_shown(one[name], whole) for name in columns), *numbers)
    console.print(table)
    if found:
        means = f"Highest {' + '.join(['score', *added])} first{but}."
        if "× avg" in standing.values():
            apart = ", the shop's rules apart" if "boost" in added else ""
            means += f" × avg: how many times as likely to be bought next as the average product{apart}."
        elif standing:
            means += " percentile: how many of 100 products stand below."
        console.print(Text(means, "dim"))
    for place, one in enumerate(found, 1):
        if "because" in one:
            console.print(
                Text(f"{place}  ")
                .append(f"{one['above_average']:+.2f} {one['unit']} above average. ")
                .append(one["because"], "dim")
            )


def _shown(value: object, whole: bool) -> str:
    if isinstance(value, int | float):
        return f"{value:,}" if whole else f"{value:,.2f}"
    return "" if value is None else str(value)
