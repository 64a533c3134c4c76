"""A shop to the text of its dataset.toml: each guess beside what was seen, and what is left out with the reason."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from recsys_jax.data.files import toml_text
from recsys_jax.data.tabular.frames import free
from recsys_jax.data.values import parse_number
from recsys_jax.errors import InputError
from recsys_jax.schema_inference.arranging import Shop, Side, dates_purchase
from recsys_jax.schema_inference.columns import (
    FEATURES,
    Ask,
    Column,
    Content,
    content,
    missing_words,
    place,
    says,
    words,
)
from recsys_jax.schema_inference.draft import Draft
from recsys_jax.schema_inference.leaks import judged
from recsys_jax.schema_inference.profiles import LABELS, catalogue, no_numbers

_DIGIT = re.compile(r"\d")
_GROUPS = 12  # values, up to which results can be broken down by them
_FEW = 0.01  # of the rows, up to which they are slips
_AGAIN = 0.2  # of purchases, from which on customers are taken to want again what they bought, as tea
_ECHOES = 0.95  # of customers, from which on an attribute repeats what they bought


def describe(shop: Shop, name: str, ask: Ask, keep: Collection[str] = ()) -> Draft:
    """The dataset.toml of a shop. Asks where another guess is as likely. Keeps attributes that are named, if it can.

    Raises `InputError` where nothing can be learned from.
    """
    draft = Draft(["# Guessed by recsys-jax init: each line says what it saw. docs/datasets.md explains every key."])
    draft.say("name", name)
    _products(draft, shop, ask)
    if shop.customers is None:
        _made_of_reviews(draft, shop)
        _missing(draft)
        return draft
    _customers(draft, shop, shop.customers, ask, keep)
    if not shop.own:
        said = {*_purchases(draft, shop, shop.customers), *_when(draft, shop, ask), shop.customer, shop.product}
        draft.leave_out({name: _beside(one) for name, one in shop.purchases.columns.items() if name not in said})
    draft.read += [column for name, column in shop.purchases.columns.items() if name in (shop.customer, shop.product)]
    _missing(draft)
    return draft


def _missing(draft: Draft) -> None:
    """What says that nothing is known in a column that is read; above the sections."""
    raw = [Column(column.name, column.cells) for column in draft.read]
    found = dict.fromkeys(word for column in raw for word in missing_words(column))
    if found:
        draft.say("missing_values", list(found), "seen in cells, as if they were empty")
        draft.lines.insert(2, draft.lines.pop())


def _products(draft: Draft, shop: Shop, ask: Ask) -> None:
    side = shop.products
    draft.section("[products]", side.saw)
    draft.say("file", side.sheet.file)
    draft.say("id", side.id, "another one in each row")
    found = {name: content(column, ask) for name, column in side.columns.items()}
    different = [one for one in side.columns.values() if 2 * len(one.counts) > one.filled > 2 * len(one.numbers)]
    texts = {one.name: found[one.name] for one in different if found[one.name].kind in ("text", "useless")}
    titles = _named(texts, "name") or [*texts]
    roles = {key: _named(found, key, "categorical") for key in ("brand", "category")}
    prices = _named(found, "price", "numeric")
    prices = prices or [one for one in _named(found, "price") if side.columns[one].share(_DIGIT.search) >= _ECHOES]
    for key, names in {"name": titles, **roles, "price": prices}.items():
        if names:
            draft.say(key, names[0], "shown to people" + (f"; or {', '.join(names[1:])}" if names[1:] else ""))
        elif key == "category":
            draft.remark("no column is called a category or the like; category = COLUMN would show one to people")
    if shop.reviews is not None:
        draft.say("reviews", shop.reviews, "personas, and with them customers, are made of these")
    bought = Counter(product for _, product in shop.pairs)
    shown = {*titles[:1], shop.reviews}
    _features(draft, "products", side, bought, {name: one for name, one in found.items() if name not in shown})


def _named(found: Mapping[str, Content], key: str, kind: str = "") -> list[str]:
    """The columns, of a kind or any, whose names say something, by the order of its words."""
    ranked = [
        (at, name) for name, one in found.items() if kind in ("", one.kind) and (at := place(name, key)) is not None
    ]
    return [name for _, name in sorted(ranked, key=lambda one: one[0])]


def _features(
    draft: Draft,
    title: str,
    side: Side,
    bought: Mapping[int, int],
    found: Mapping[str, Content],
    keep: Collection[str] = (),
) -> None:
    """The features of one side, whose rows have so many purchases. Raises `InputError` where no column is one."""
    left_out, names = dict(side.left_out), ["product_id"]
    for name, one in found.items():
        if one.kind not in FEATURES:
            left_out[name] = one.saw
        elif one.kind == "numeric" and name not in keep and _counts_purchases(side.columns[name], bought):
            left_out[name] = "it counts the purchases that are to be foretold"
        elif (
            title == "products"
            and says(name, "stock")
            and (one.kind == "numeric" or len(side.columns[name].counts) < 4)
        ):
            left_out[name] = "what is in stock changes; --available says it when lists are made"
    draft.leave_out(left_out)
    for name, one in found.items():
        if name not in left_out:
            names.append(free(re.sub(r"\W+", "_", name).strip("_") or "feature", names))
            draft.feature(title, side.columns[name], names[-1], one)
    if len(names) == 1:
        said = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "none"
        raise InputError(
            f"{side.sheet.file}: found no column that a tower could learn from ({said}); allowed: one or more"
        )


def _counts_purchases(column: Column, bought: Mapping[int, int]) -> bool:
    """Whether a number rises with the purchases so exactly that it must have been counted from them."""
    pairs = [(column.numbers[key], bought[row]) for row, key in enumerate(column.keys) if key in column.numbers]
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T
    return len(x) >= 10 and bool(np.ptp(x) and np.ptp(y) and np.corrcoef(x, y)[0, 1] > 0.95)


def _made_of_reviews(draft: Draft, shop: Shop) -> None:
    """Customers that `personas` makes of reviews, and the beginning of its catalogue where these state something."""
    draft.section("[customers]", f"{shop.saw}; docs/personas.md")
    draft.say("id", "user_id")
    told = "results are told by persona" + (
        "; what reviewers state, below, is what the model reads" * bool(shop.stated)
    )
    draft.say("segment", "persona_name", told, tell=bool(shop.stated))
    draft.say("purchases", "purchased_product_id")
    draft.leave_out(shop.left_out)
    if any(shop.left_out.values()):
        draft.remark("init --keep COLUMN makes an attribute of one of these all the same, if it has numbers or values")
    for one in shop.stated:
        where = f"the column {one.column.name}" if one.column.name else "profiles"
        saw = f"in {where}: {', '.join(key for key, _ in one.column.counts.most_common(6))}"
        saw += one.column.without if one.column.nothing else ""
        saw += no_numbers(one, shop.language)
        saw += f"; {doubt}" if (doubt := shop.doubts.get(one.column.name)) else ""
        found = Content("categorical" if "values" in one.table else "numeric", saw)
        draft.feature("customers", one.read, one.table["name"], found)
        if not one.column.name and (label := LABELS[shop.language].get(one.table["name"])):
            draft.say("label", {"en": one.table["name"].replace("_", " "), "ko": label}, "shown to people")
    if shop.stated:
        draft.lines += ["", "[personas]", 'catalogue = "personas.toml"  # begun with what reviewers state']
        draft.files["personas.toml"] = catalogue(shop.stated, shop.language)
    else:
        found = Content("categorical", "the cluster of a review")
        draft.feature("customers", Column("persona_name", ()), "persona_name", found)
        draft.remark('[personas] catalogue = "personas.toml" would name personas, and what customers state')


def _customers(draft: Draft, shop: Shop, side: Side, ask: Ask, keep: Collection[str]) -> None:
    draft.section("[customers]", side.saw)
    draft.say("file", side.sheet.file)
    draft.say("id", side.id, "the same in several rows" if side.repeated else "another one in each row")
    if side.repeated:
        draft.say("repeated", "first", "attributes are those of a customer's first row, purchases those of all")
    found = {name: content(column, ask) for name, column in side.columns.items()}
    segments = _named(found, "segment", "categorical")[:1]
    for name in segments:
        draft.say("segment", name, "results are broken down by it")
    if shop.own:
        draft.say("purchases", shop.product, f"ids of {shop.products.sheet.file}")
        if shop.separator is not None:
            draft.say("separator", shop.separator)
        _when(draft, shop, ask)
    for name, one in found.items():
        if one.kind in FEATURES and name not in keep:
            why, doubt = _leak(shop, side.columns[name], one, ask)
            found[name] = Content("useless", why) if why else one._replace(saw=one.saw + (doubt and f"; {doubt}"))
    few = {name: side.columns[name] for name, one in found.items() if one.kind == "categorical"}
    few = {name: column for name, column in few.items() if not segments and 1 < len(column.counts) <= _GROUPS}
    if few:
        best = max(few, key=lambda name: (few[name].filled, len(few[name].counts)))
        draft.remark(f"segment = {toml_text(best)} would break results down by it; or by another column")
    _features(draft, "customers", side, Counter(customer for customer, _ in shop.pairs), found, keep)


def _leak(shop: Shop, column: Column, found: Content, ask: Ask) -> tuple[str, str]:
    """Why an attribute of customers must have been made of their purchases; or what is doubtful of one that is kept."""
    keys, doubt = [column.keys[customer] for customer, _ in shop.pairs], shop.doubts.get(column.name, "")
    if not doubt:
        bought = [str(product) for _, product in shop.pairs]
        why, doubt = judged(column.name, keys, bought, shop.product, ask, alone=False)
        if why:
            return why, ""
    for other in shop.products.columns.values() if found.kind == "categorical" else ():
        shared = column.counts.keys() & other.counts.keys()
        if len(shared) >= max(3, 0.8 * len(column.counts)):
            echoed: dict[int, bool] = defaultdict(bool)
            for key, (customer, product) in zip(keys, shop.pairs, strict=True):
                if key is not None:
                    echoed[customer] |= key == other.keys[product]
            if len(echoed) >= 10 and sum(echoed.values()) >= _ECHOES * len(echoed):
                return f"it is the {other.name} of something that the customer bought", ""
    question = f"{column.name}: {found.saw}. Is it made of the purchases, so that it is not known before them?"
    if says(column.name, "summed") and ask(question, ("yes", "no"), "yes") == "yes":
        return "its name says that it is made of the purchases", ""
    return "", doubt


def _beside(column: Column) -> str:
    """Why a column of purchases is left out."""
    why = "it is said of the purchase; towers learn of customers and products"
    return column.guessed.saw if column.guessed.kind == "useless" else why


def _when(draft: Draft, shop: Shop, ask: Ask) -> list[str]:
    """The date of purchases, and whether they are made again; the columns that something is said of."""
    columns = shop.purchases.columns
    dates = sorted(filter(dates_purchase, columns.values()), key=lambda column: not says(column.name, "date"))
    when: Sequence[str | None] = [None] * len(columns[shop.product].keys)
    unread = [one for one in columns.values() if says(one.name, "date") and one.guessed.kind == "useless" and not dates]
    draft.leave_out({column.name: column.guessed.saw for column in unread})
    said = [column.name for column in (*dates[:1], *unread)]
    for date in dates[:1]:
        if date.dated < 1 or date.filled < (1 - 10 * _FEW) * len(date.cells):
            draft.remark(f"left out: {date.name}: {date.guessed.saw}; each purchase needs a date")
        else:
            draft.say("date", date.name, date.guessed.saw, tell=True)
            if date.date_format is not None:
                draft.say("date_format", date.date_format, "of all forms the one that fits each date")
            draft.read.append(date)
            when = date.keys
    if shop.customer not in columns:
        return said
    rows = zip(columns[shop.customer].keys, columns[shop.product].keys, when, strict=True)
    known = [row for row in rows if None not in row[:2]]
    # On one day, the same purchase twice may be a slip.
    again = len({*known} if any(when) else known) - len({row[:2] for row in known})
    share = again / max(len(known), 1)
    seen = f"{again:,} of {len(known):,} purchases are of a product that the customer bought before"
    answer = "yes" if share >= _AGAIN else "no"
    if again:
        answer = ask(f"{seen}. Should products already bought be recommended again?", ("yes", "no"), answer)
    if known:
        draft.say("repeat", "allowed" if answer == "yes" else "never", seen, tell=True)
    return said


def _purchases(draft: Draft, shop: Shop, customers: Side) -> list[str]:
    """The table of purchases: of whom, of what, which of its rows are none; the columns that something is said of."""
    sheet = shop.purchases
    draft.section("[interactions]", f"{sheet.file}, {len(sheet.table):,} rows")
    draft.say("file", sheet.file)
    sides = (("customer", shop.customer, customers), ("product", shop.product, shop.products))
    for key, name, side in sides:
        draft.say(key, name, f"the ids of {side.id} in {side.sheet.file}")
    for key, name, side in sides:
        keys, ids = sheet.columns[name].keys, {*side.ids}
        empty, others = keys.count(None), sum(key is not None and key not in ids for key in keys)
        seen = f"of {len(keys):,} rows, {empty:,} have none and {others:,} one that {side.sheet.file} lacks"
        draft.say(f"unknown_{key}s", "ignore" if empty + others > _FEW * len(keys) else "error", seen, tell=True)
    conditions, saw, rated = dict[str, object](), [], []
    for name, column in sheet.columns.items():
        if name in (shop.product, shop.customer) or not 2 <= len(column.counts) <= 50:
            continue
        # As the conditions of `where` read them: without units.
        numbers = [number for key in column.counts if (number := parse_number(key)) is not None]
        no = [key for key in column.counts if key.casefold() in words("no")]
        seen = f"{name}: {', '.join(f'{key} ({count:,})' for key, count in column.counts.most_common(6))}"
        if says(name, "returned") and no and len(column.counts) <= 3:
            conditions[name] = [*no, *([""] if column.filled < len(column.cells) else [])]
        elif any(says(key, "returned") for key in column.counts):
            conditions[name] = [key for key in column.counts if not says(key, "returned")]
        elif says(name, "quantity") and numbers and min(numbers) <= 0 < max(numbers):
            conditions[name] = {"min": 1}
        elif says(name, "rating") and numbers:
            good = toml_text({name: {"min": round(0.8 * max(numbers))}})
            rated.append(name)
            draft.remark(f"where = {good} would make poor ratings no purchases; {seen}")
        saw += [seen] if name in conditions else []
    if conditions:
        draft.read += [sheet.columns[name] for name in conditions]
        draft.say("where", conditions, f"other rows are no purchases; {'; '.join(saw)}", tell=True)
    return [*conditions, *rated]
