"""A shop to the text of its dataset.toml: each guess beside what was seen, and what is left out with the reason."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from recsys_jax.data.files import toml_text
from recsys_jax.data.values import parse_number
from recsys_jax.errors import InputError
from recsys_jax.schema_inference.arranging import DATED, FOLLOWS, Shop, Side, following
from recsys_jax.schema_inference.columns import Ask, Column, Content, content, missing_words, place, says, words
from recsys_jax.schema_inference.draft import Draft
from recsys_jax.schema_inference.linking import explained
from recsys_jax.schema_inference.profiles import catalogue, stated

_FEW = 0.01  # of the rows, up to which they are slips
_ECHOES = 0.95  # of customers, from which on an attribute repeats what they bought


def describe(shop: Shop, name: str, ask: Ask) -> Draft:
    """The dataset.toml of a shop. Asks where another guess is as likely.

    Raises `InputError` where nothing can be learned from.
    """
    draft = Draft(["# Guessed by recsys-jax init: each line says what it saw. docs/datasets.md explains every key."])
    draft.say("name", name)
    sides = [shop.products, *([shop.customers] if shop.customers else [])]
    columns = [column for side in sides for column in side.columns.values()]
    columns += [shop.purchases.columns[one] for one in (shop.customer, shop.product) if one in shop.purchases.columns]
    _missing(draft, shop, columns, ask)
    _products(draft, shop, ask)
    _customers(draft, shop, ask)
    if not shop.own:
        _purchases(draft, shop)
        _when(draft, shop, ask)
    return draft


def _missing(draft: Draft, shop: Shop, columns: Sequence[Column], ask: Ask) -> None:
    """What says in any column that nothing is known."""
    raw = [Column(column.name, column.cells) for column in columns]
    found = Counter(word for column in raw for word in missing_words(column))
    for column in raw:
        for word in missing_words(column, "perhaps_missing") if column.guessed.kind != "useless" else ():
            seen = f"{word!r} in {column.counts[word]:,} rows of {column.name}"
            if ask(f"{seen}. Does it say that nothing is known?", ("yes", "no"), "no") == "yes":
                found[word] += 1
            else:
                draft.remark(f"{seen} counts as a value; missing_values may have it, if it says that nothing is known")
    if found:
        draft.say("missing_values", list(found), "seen in cells, as if they were empty")


def _products(draft: Draft, shop: Shop, ask: Ask) -> None:
    side = shop.products
    draft.section("[products]", side.saw)
    draft.say("file", side.file)
    draft.say("id", side.id, "another one in each row")
    found = {name: content(column, ask) for name, column in side.columns.items()}
    roles = {key: _named(found, key, "categorical") for key in ("brand", "category")}
    roles["price"] = _named(found, "price", "numeric")
    other = {name for names in roles.values() for name in names}
    many = [column for column in side.columns.values() if 2 * len(column.counts) > column.filled > 0]
    texts = [one.name for one in many if found[one.name].kind == "useless" and one.share(parse_number) < 0.5]
    titles = [name for name in _named(found, "name", "useless") if name in texts]
    roles = {"name": titles or texts, **roles}
    used: set[str] = set()
    for key, names in roles.items():
        free = [name for name in names if name not in used and (key != "name" or name not in other)]
        if free:
            used.add(free[0])
            draft.say(key, free[0], "shown to people" + (f"; or {', '.join(free[1:])}" if free[1:] else ""))
        elif key == "category":
            draft.remark("no category: no column of one value is named so; category = COLUMN would be shown to people")
    if shop.reviews is not None:
        draft.say("reviews", shop.reviews, "personas, and with them customers, are made of these")
    skip = {shop.reviews, *titles[:1], *([] if titles else texts[:1])}
    bought = Counter(product for _, product in shop.pairs)
    counts = [bought[row] for row in range(len(side.ids))]
    for name in [name for name, one in found.items() if one.kind == "numeric"]:
        if _counts_purchases(side.columns[name], counts):
            found[name] = Content("useless", "it counts the purchases that are to be foretold")
    _features(draft, "products", side, {name: one for name, one in found.items() if name not in skip})


def _named(found: Mapping[str, Content], key: str, *kinds: str) -> list[str]:
    """The columns of some kinds whose names say something, by the order of its words."""
    ranked = [(at, name) for name, one in found.items() if one.kind in kinds and (at := place(name, key)) is not None]
    return [name for _, name in sorted(ranked, key=lambda one: one[0])]


def _counts_purchases(column: Column, counts: Sequence[int]) -> bool:
    """Whether a number rises with the purchases so exactly that it must have been counted from them."""
    pairs = [
        (number, count)
        for key, count in zip(column.keys, counts, strict=True)
        if (number := parse_number(key)) is not None
    ]
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(x) < 10 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return False
    return bool(np.corrcoef(x, y)[0, 1] > 0.95)


def _features(draft: Draft, side: str, of: Side, found: Mapping[str, Content]) -> None:
    """The features of one side. Raises `InputError` where no column is one."""
    left_out = {name: one.saw for name, one in found.items() if one.kind in ("useless", "date", "reviews")}
    for name, why in {**of.left_out, **left_out}.items():
        if why != DATED:
            draft.remark(f"left out: {name}: {why}")
    draft.side, names = side, {"product_id"}
    for name, one in found.items():
        if name not in left_out:
            short = re.sub(r"\W+", "_", name).strip("_") or "feature"
            while short in names:
                short += "_"
            names.add(short)
            draft.feature(of.columns[name], short, one)
    if len(names) == 1:
        said = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "none"
        raise InputError(f"{of.file}: found no column that a tower could learn from ({said}); allowed: one or more")


def _customers(draft: Draft, shop: Shop, ask: Ask) -> None:
    side = shop.customers
    if side is None:
        _made_of_reviews(draft, shop)
        return
    draft.section("[customers]", side.saw)
    draft.say("file", side.file)
    draft.say("id", side.id, "the same in several rows" if side.repeated else "another one in each row")
    if side.repeated:
        draft.say("repeated", "first", "attributes are those of a customer's first row, purchases those of all")
    found = {name: content(side.columns[name], ask) for name in side.columns if name != shop.product or not shop.own}
    segments = [name for name in _named(found, "segment") if found[name].kind == "categorical"]
    if segments:
        draft.say("segment", segments[0], "results are broken down by it")
    if shop.own:
        draft.say("purchases", shop.product, f"ids of {shop.products.file}")
        if shop.separator is not None:
            draft.say("separator", shop.separator)
        _when(draft, shop, ask)
    for name in found:
        why = _leak(shop, side, name, found[name])
        if why is None and says(name, "summed"):
            question = f"{name}: {found[name].saw}. Is it made of the purchases, so that it is not known before them?"
            why = (
                "its name says that it is made of the purchases"
                if ask(question, ("yes", "no"), "yes") == "yes"
                else None
            )
        if why is not None and found[name].kind != "useless":
            found[name] = Content("useless", why)
    _features(draft, "customers", side, found)


def _made_of_reviews(draft: Draft, shop: Shop) -> None:
    """Customers that `personas` makes of reviews, and the beginning of its catalogue where profiles state something."""
    draft.section("[customers]", "no file: recsys-jax personas makes a customer of each review; docs/personas.md")
    for key, value in (("id", "user_id"), ("segment", "persona_name"), ("purchases", "purchased_product_id")):
        draft.say(key, value)
    nested = shop.products.columns.get(shop.reviews or "")
    cells = nested.cells if nested is not None else ()
    attributes = stated(cells)
    draft.side = "customers"
    if not attributes:
        draft.feature(Column("persona_name", ()), "persona_name", Content("categorical", "the cluster of a review"))
    for one in attributes:
        saw = f"in profiles: {', '.join(one.values[:6]) or f'numbers{one.unit}'}"
        draft.feature(Column(one.name, ()), one.name, Content("categorical" if one.values else "numeric", saw))
    if attributes:
        draft.lines += ["", "[personas]", 'catalogue = "personas.toml"  # begun with what profiles state']
        draft.files["personas.toml"] = catalogue(cells, attributes)
    else:
        draft.remark('[personas] catalogue = "personas.toml" would name personas, and what customers state')


def _leak(shop: Shop, side: Side, name: str, found: Content) -> str | None:
    """Why an attribute of customers must have been made of their purchases; None where it need not be."""
    column = side.columns[name]
    keys = [column.keys[customer] for customer, _ in shop.pairs]
    bought = [product for _, product in shop.pairs]
    if explained(keys, [str(product) for product in bought]) >= FOLLOWS:
        return following(shop.product)
    if found.kind == "numeric" and not shop.own:
        counts = Counter(customer for customer, _ in shop.pairs)
        if _counts_purchases(column, [counts[row] for row in range(len(column.cells))]):
            return "it counts the purchases that are to be foretold"
    for other in shop.products.columns.values() if found.kind == "categorical" else ():
        shared = column.counts.keys() & other.counts.keys()
        if len(shared) < 3 or len(shared) < 0.8 * len(column.counts):
            continue
        echoed: dict[int, bool] = {}
        for customer, product in shop.pairs:
            if column.keys[customer] is not None:
                echoed[customer] = echoed.get(customer, False) or column.keys[customer] == other.keys[product]
        if len(echoed) >= 10 and sum(echoed.values()) >= _ECHOES * len(echoed):
            return f"it is the {other.name} of something that the customer bought"
    return None


def _when(draft: Draft, shop: Shop, ask: Ask) -> None:
    """The date of purchases, and whether they are made again."""
    columns = shop.purchases.columns
    dates = [
        column for name, column in columns.items() if column.guessed.kind == "date" and not says(name, "about_customer")
    ]
    dates.sort(key=lambda column: not says(column.name, "date"))
    date: Column | None = dates[0] if dates else None
    if date is not None and (not date.guessed.whole or date.filled < (1 - 10 * _FEW) * len(date.cells)):
        draft.remark(f"left out: {date.name}: {date.guessed.saw}; each purchase needs a date")
        date = None
    if date is not None:
        draft.say("date", date.name, date.guessed.saw)
    who = columns[shop.customer].keys if shop.customer in columns else []
    what = columns[shop.product].keys
    when = date.keys if date is not None else [None] * len(what)
    rows = [row for row in zip(who, what, when, strict=True) if None not in row[:2]] if who else []
    if not rows:
        return
    again = len(set(rows) if date is not None else rows) - len({row[:2] for row in rows})
    seen = f"{again:,} of {len(rows):,} purchases are of a product that the customer bought before"
    often = again > 2 * _FEW * len(rows)
    answer = "yes" if often else "no"
    if _FEW * len(rows) < again < 10 * _FEW * len(rows):
        answer = ask(f"{seen}. Do customers buy products again, as tea, and not once, as films?", ("yes", "no"), answer)
    draft.say("repeat", "allowed" if answer == "yes" else "never", seen)


def _purchases(draft: Draft, shop: Shop) -> None:
    """The table of purchases: of whom, of what, and which of its rows are none."""
    sheet, customers = shop.purchases, shop.customers
    assert customers is not None
    draft.section("[interactions]", f"{sheet.file}, {len(sheet.table):,} rows")
    draft.say("file", sheet.file)
    sides = (("customer", shop.customer, customers), ("product", shop.product, shop.products))
    for key, name, side in sides:
        draft.say(key, name, f"the ids of {side.id} in {side.file}")
    for key, name, side in sides:
        keys, ids = sheet.columns[name].keys, {*side.ids}
        empty, others = keys.count(None), sum(key is not None and key not in ids for key in keys)
        seen = f"of {len(keys):,} rows, {empty:,} have none and {others:,} one that {side.file} lacks"
        draft.say(f"unknown_{key}s", "ignore" if empty + others > _FEW * len(keys) else "error", seen)
    _where(draft, shop)


def _where(draft: Draft, shop: Shop) -> None:
    """The rows that are no purchases: returns; and perhaps poor ratings, which people decide."""
    conditions: dict[str, object] = {}
    saw = []
    for name, column in shop.purchases.columns.items():
        if name in (shop.product, shop.customer) or not 2 <= len(column.counts) <= 50:
            continue
        numbers = [number for key in column.counts if (number := parse_number(key)) is not None]
        seen = ", ".join(f"{key} ({count:,})" for key, count in column.counts.most_common(6))
        kept = [key for key in column.counts if key.casefold() in words("no")]
        if says(name, "returned") and kept and len(column.counts) <= 3:
            conditions[name] = [*kept, *([""] if column.filled < len(column.cells) else [])]
        elif any(says(key, "returned") for key in column.counts):
            conditions[name] = [key for key in column.counts if not says(key, "returned")]
        elif says(name, "quantity") and numbers and min(numbers) <= 0 < max(numbers):
            conditions[name] = {"min": 1}
        elif says(name, "rating") and numbers:
            good = toml_text({name: {"min": round(0.8 * max(numbers))}})
            draft.remark(f"where = {good} would make poor ratings no purchases; {name}: {seen}")
            continue
        else:
            continue
        saw.append(f"{name}: {seen}")
    if conditions:
        draft.say("where", conditions, f"other rows are no purchases; {'; '.join(saw)}")
