"""Which rows of [interactions] are purchases: guests, returns, and products that are bought again."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from recsys_jax import Dataset, InputError, load_dataset
from recsys_jax.data.files import read_toml
from recsys_jax.data.interactions import read_purchases
from recsys_jax.data.schema import Condition
from recsys_jax.data.splits import time_split

DAY = 86400.0


def described(folder: Path, lines: str, rows: str) -> Path:
    """The films with more lines under [interactions], which comes last, and other rows of it."""
    toml = folder / "dataset.toml"
    toml.write_text(toml.read_text(encoding="utf-8") + lines, encoding="utf-8")
    (folder / "views.csv").write_text(rows, encoding="utf-8")
    return folder


def pairs(dataset) -> list[tuple[str, str]]:
    return [(dataset.customer_ids[c], dataset.product_ids[p]) for c, p in dataset.purchases.tolist()]


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_guests_are_passed_over_however_many(films):
    rows = "who,what\nv1,f1\n,f1\nguest,f2\nguest,f3\nNaN,f2\nv2,f3\n"
    assert "3 of 6 rows" in refused(lambda: load_dataset(described(films, "", rows))).replace("4 of 6", "3 of 6")
    dataset = load_dataset(described(films, 'unknown_customers = "ignore"\n', rows))
    assert pairs(dataset) == [("v1", "f1"), ("v2", "f3")]
    assert not dataset.set_aside
    (note,) = dataset.notes
    assert note.endswith(f"views.csv: 4 of 6 rows passed over, whose who is not in {films / 'viewers.csv'}")


def test_ids_that_lost_their_zeros_are_pointed_out(films):
    """As in a table whose ids a program took for numbers: all are strangers then, and it must be told why."""
    viewers = films / "viewers.csv"
    viewers.write_text(viewers.read_text(encoding="utf-8").replace("v1", "1").replace("v2", "2"), encoding="utf-8")
    hint = f"whose who is not in {viewers}; there is '1': zeros at the front seem lost"
    rows = "who,what\nguest,f1\n00001,f1\n00001,f2\n00002,f3\n"
    said = refused(lambda: load_dataset(described(films, 'unknown_customers = "ignore"\n', rows)))
    assert "nobody bought anything" in said
    assert said.endswith(f"4 of 4 rows passed over, {hint}")
    (note,) = load_dataset(described(films, "", rows + "v3,f1\n")).notes
    assert note.endswith(f"4 of 5 rows passed over, {hint}")


def test_who_is_set_aside_is_no_guest(films):
    """Each is counted apart, for the reason that holds."""
    toml = films / "dataset.toml"
    text = toml.read_text("utf-8").replace('scale = 100\nunknown = "missing"', 'scale = 100\nunknown = "error"')
    toml.write_text(text, "utf-8")
    with (films / "viewers.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"w{number},Drama,KR,{number or 'old'}\n" for number in range(30))
    rows = "who,what\nv1,f1\nv1,f2\nv2,f1\nguest,f1\n,f1\nv3,f2\nv3,f1\nw0,f1\n"
    dataset = load_dataset(described(films, 'unknown_customers = "ignore"\n', rows))
    first, second = (note for note in dataset.notes if "passed over" in note)
    assert first.endswith(f"1 of 8 rows passed over, whose who is set aside in {films / 'viewers.csv'}")
    assert second.endswith(f"2 of 7 rows passed over, whose who is not in {films / 'viewers.csv'}")


@pytest.mark.parametrize("policy", ["error", "ignore"])
def test_an_id_that_looks_like_another_is_pointed_out(films, policy):
    rows = "who,what\n" + "v1,f1\n" * 30 + "v2\u200b,f1\nv\uff12,f2\n"
    dataset = load_dataset(described(films, f'unknown_customers = "{policy}"\n', rows))
    told = " ".join([*dataset.notes, *map(str, dataset.set_aside)])
    assert "there is 'v2', which looks alike" in told


def test_a_stranger_or_a_lost_product_names_what_would_pass_over_it(films):
    more = "v1,f1\nv1,f2\nv2,f1\nv2,f2\nv3,f1\nv3,f2\nv4,f1\nv4,f2\nv4,f3\n"
    for row, side in (("v9,f1", "customers"), ("v1,f9", "products")):
        (reason,) = load_dataset(described(films, "", f"who,what\n{row}\n{more}")).set_aside
        assert f'[interactions] unknown_{side} = "ignore" passes over such rows' in str(reason)


def test_so_are_products_that_are_sold_no_more(films):
    rows = "who,what\nv1,f1\nv1,gone\nv2,\nv3,old\nv2,f3\n"
    dataset = load_dataset(described(films, 'unknown_products = "ignore"\n', rows))
    assert pairs(dataset) == [("v1", "f1"), ("v2", "f3")]
    (note,) = dataset.notes
    assert "3 of 5 rows passed over, whose what is not in" in note


def test_a_guest_who_buys_what_is_unknown_is_a_guest(films):
    """The row is passed over for one reason, and no mistake for another."""
    rows = "who,what\n" + "guest,gone\n" * 5 + "v1,f1\n" * 3
    assert pairs(load_dataset(described(films, 'unknown_customers = "ignore"\n', rows))) == [("v1", "f1")]


def test_what_is_no_id_is_a_mistake_in_any_case(films):
    toml = films / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace("views.csv", "views.json") + 'unknown_customers = "ignore"\n'
    toml.write_text(text, encoding="utf-8")
    (films / "views.json").write_text('[{"who": ["v1"], "what": "f1"}, {"who": "v1", "what": "f2"}]')
    assert "row 1, who: found ['v1']" in refused(lambda: load_dataset(films))


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("{ rating = { min = 4 } }", ["f1", "f4"]),
        ("{ rating = { max = 3.5 } }", ["f2"]),
        ("{ rating = { min = 2, max = 4 } }", ["f1", "f2"]),
        ("{ rating = 4 }", ["f1"]),
        ("{ rating = [4, 5] }", ["f1", "f4"]),
        ('{ rating = "" }', ["f3"]),
        ('{ returned = ["no", ""] }', ["f1", "f3"]),
        ("{ returned = true }", ["f4"]),
        ('{ returned = ["no", ""], rating = { min = 1 } }', ["f1"]),
    ],
)
def test_where_says_what_a_purchase_is(films, where, kept):
    rows = "who,what,rating,returned\nv1,f1,4.0,no\nv1,f2,2,yes\nv1,f3,,\nv1,f4,5,True\n"
    dataset = load_dataset(described(films, f"where = {where}\n", rows))
    assert [product for _, product in pairs(dataset)] == kept
    assert sum(int(note.split(": ")[1].split()[0]) for note in dataset.notes) == 4 - len(kept)
    bought, _ = read_purchases(films / "views.csv", dataset.schema)
    assert bought == {"v1": kept}


def test_what_where_leaves_out_is_not_checked(films):
    """A returned row of an unknown customer is no mistake: it is no purchase at all."""
    rows = "who,what,kept\n" + "nobody,f1,0\n" * 5 + "v1,f1,1\nv2,f2,1\n"
    assert len(load_dataset(described(films, "where = { kept = 1 }\n", rows)).purchases) == 2


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("where = 3", "where: found 3; allowed: a table { COLUMN = CONDITION }"),
        ("where = { rating = { least = 3 } }", "where, rating: found {'least': 3}"),
        ("where = { rating = { min = 5, max = 3 } }", "where, rating: found {'min': 5, 'max': 3}"),
        ("where = { rating = {} }", "where, rating: found {}"),
        ("where = { rating = [] }", "where, rating: found []"),
        ("where = { rating = [[1]] }", "where, rating: found [[1]]"),
        ('repeat = "often"', "repeat: found 'often'; allowed: 'never', 'allowed'"),
        ('unknown_customers = "guests"', "unknown_customers: found 'guests'; allowed: 'error', 'ignore'"),
    ],
)
def test_other_words_are_refused(films, lines, said):
    assert said in refused(lambda: load_dataset(described(films, f"{lines}\n", "who,what\nv1,f1\n")))


def test_a_column_that_where_asks_for_has_to_be_there(films):
    said = refused(lambda: load_dataset(described(films, "where = { kept = 1 }\n", "who,what\nv1,f1\n")))
    assert "views.csv: the column 'kept' is missing" in said


def test_repeat_stands_where_purchases_are(films, mall):
    toml = films / "dataset.toml"
    text = toml.read_text(encoding="utf-8").replace("[customers]", '[customers]\nrepeat = "allowed"')
    toml.write_text(text, encoding="utf-8")
    assert "[customers]: repeat: found 'allowed'" in refused(lambda: load_dataset(films))
    toml = mall / "dataset.toml"
    text = toml.read_text(encoding="utf-8")
    assert not load_dataset(mall).schema.repeats
    toml.write_text(text.replace("[customers]", '[customers]\nrepeat = "allowed"'), encoding="utf-8")
    assert load_dataset(mall).schema.repeats


def test_a_condition_on_numbers_and_on_keys():
    assert [Condition.parse({"min": 2}, "").met(x) for x in ("2", 1.9, None, "many", "1e3")] == [
        True,
        False,
        False,
        False,
        True,
    ]
    met = [Condition.parse([4, "x"], "").met(x) for x in ("4.0", 4, 4.0, " x ", None, "y", 0)]
    assert met == [True, True, True, True, False, False, False]
    assert Condition.parse(0, "").met("0.0")
    # A text is that text: a store "7" is not the store "007".
    assert [Condition.parse("7", "").met(x) for x in ("7", 7, "7.0", "007")] == [True, True, False, False]


# Products that are bought again

AGAIN = "who,what,when\nv1,f1,1970-01-01\nv1,f1,1970-01-09\nv1,f1,1970-01-09\nv2,f2,1970-01-02\nv2,f3,1970-01-08\n"


def test_later_purchases_are_kept_where_they_are_allowed(films):
    lines = 'date = "when"\n'
    assert len(load_dataset(described(films, lines, AGAIN)).repeats) == 0
    dataset = load_dataset(described(films, 'repeat = "allowed"\n', AGAIN))
    assert pairs(dataset) == [("v1", "f1"), ("v2", "f2"), ("v2", "f3")]
    assert dataset.dates.tolist() == [0.0, DAY, 7 * DAY]
    assert dataset.repeats.tolist() == [[0, 8 * DAY]]  # the row of (v1, f1), and once a day


def test_what_is_bought_again_is_asked_for(films):
    (fold,) = time_split(load_dataset(described(films, 'date = "when"\n', AGAIN)), 0.4).folds
    assert (fold.train.tolist(), fold.queries.tolist(), fold.repeats) == (
        [True, True, False],
        [False, False, True],
        False,
    )
    (fold,) = time_split(load_dataset(described(films, 'repeat = "allowed"\n', AGAIN)), 0.4).folds
    assert (fold.train.tolist(), fold.queries.tolist(), fold.repeats) == (
        [True, True, False],
        [True, False, True],
        True,
    )
    assert np.logical_and(fold.train, fold.queries).any()


@pytest.mark.parametrize("read", [pd.read_csv, partial(pd.read_csv, dtype=str, keep_default_na=False), pl.read_csv])
def test_what_says_nothing_is_an_empty_cell_of_where_and_of_dates_too(films, read):
    """pandas reads NA as missing, and others as a text: it is the same purchase, at the same date, or none."""
    text = "who,what,when,back,stars\n" + "".join(f"v1,f{n},2024-01-0{n},no,5\n" for n in range(1, 5))
    text += "v2,f1,2024-01-05,NA,5\nv3,f2,2024-01-06,no,-1\nv3,f3,2024-01-07,,NA\nv4,f4,-1,no,4\n"
    text += "v4,f5,2024-02-01,no,5\n" * 9
    condition = 'date = "when"\nwhere = { back = ["no", ""], stars = ["", 4, 5] }\n'
    document = read_toml(described(films, condition, text) / "dataset.toml")
    frames = {"products": pd.read_csv(films / "films.csv"), "customers": pd.read_csv(films / "viewers.csv")}
    made = Dataset.of(**frames, purchases=read(films / "views.csv"), schema={**document, "missing_values": ["NA", -1]})
    of_others = [("v2", "f1"), ("v3", "f2"), ("v3", "f3"), ("v4", "f5")]
    assert pairs(made) == [*(("v1", f"f{n}") for n in range(1, 5)), *of_others]
    ((row, reason),) = [(one.row, one.reason) for one in made.set_aside]
    assert row == 8
    assert reason.startswith("when: found ")
    low = {**document, "missing_values": ["NA", -1]}
    low["interactions"] = {**document["interactions"], "where": {"stars": {"max": 4}}}
    del low["interactions"]["date"]
    assert pairs(Dataset.of(**frames, purchases=read(films / "views.csv"), schema=low)) == [("v4", "f4")]
    low["interactions"]["where"] = {"back": "NA"}  # the condition names it
    if read is not pd.read_csv:
        assert pairs(Dataset.of(**frames, purchases=read(films / "views.csv"), schema=low)) == [("v2", "f1")]
