"""Where a command finds what it works on, and what it says of it."""

from contextlib import contextmanager

import pytest
from command_line import run, told

from recsys_jax import InputError
from recsys_jax.console import places


def test_reading_is_seen_at_once(films, monkeypatch):
    """The bar is there before the first file is opened."""
    shown = []

    @contextmanager
    def recorded(title):
        shown.append(title)
        yield lambda *_: None

    monkeypatch.setattr(places, "progress", recorded)
    (films / "views.csv").unlink()
    with pytest.raises(InputError, match=r"views.csv: there is no such file"):
        places.load(films, None)
    assert shown == [f"reading {films}"]


@pytest.mark.parametrize(("unsold", "told"), [(0, False), (3, False), (9, True)])
def test_products_that_nobody_buys_are_pointed_out(films, capsys, monkeypatch, unsold, told):
    monkeypatch.setattr(places, "MANY", 2)
    with (films / "films.csv").open("a") as file:
        file.writelines(f"old{number},Big,Drama,1990\n" for number in range(unsold))
    places.open_dataset(films, None, None)
    assert (f"note: nobody bought {unsold:,} of the products" in capsys.readouterr().out) is told


def test_tables_that_init_has_not_seen_are_told(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "상품.csv").write_text("a,b")
    told(run("run", "b", cwd=tmp_path), "b: found tables and no dataset.toml; recsys-jax init b writes one")
