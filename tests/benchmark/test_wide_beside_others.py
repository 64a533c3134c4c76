"""The benchmark of the wide recipe: the shop that it generates, and a tiny run where a peer is missing."""

from contextlib import contextmanager

import numpy as np
import pytest

from recsys_jax import InputError
from recsys_jax_benchmark import main as benchmark
from recsys_jax_benchmark import wide
from recsys_jax_benchmark.peers import __main__ as peers
from recsys_jax_benchmark.peers import split
from recsys_jax_benchmark.process import Limits

TINY = wide.Shop(customers=300, products=12, purchases=400)


def test_the_shop_is_as_large_as_said_and_the_seed_makes_it():
    made, again, other = (wide.generate(wide.Shop(300, 12, 400, seed)) for seed in (1, 1, 2))
    assert (len(made.customer_ids), len(made.product_ids)) == (300, 12)
    assert 300 < len(made.purchases) <= 400  # a purchase that is repeated counts once
    assert len(np.unique(made.purchases[:, 0])) == 300
    kinds = [type(feature).__name__ for feature in made.schema.customers.features]
    assert kinds == ["Categorical", "Categorical", "Numeric", "Numeric", "Numeric", "Numeric"]
    assert made.fingerprint == again.fingerprint != other.fingerprint


def test_a_tiny_run_measures_who_is_there(tmp_path, monkeypatch, capsys):
    @contextmanager
    def here(title, child, *arguments, limits):
        yield lambda: next(child(limits, *arguments))

    def ask(peer, folder, progress, given):
        if peer == "lightfm":
            raise InputError("its environment could not be installed")
        peers.run(peer, folder, lambda line: None, given)
        return answered(peer, folder, given)

    answered = split.answer_of
    monkeypatch.setattr(wide, "in_process", here)
    monkeypatch.setattr(split, "ask", ask)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sklearn = "scikit-learn, logistic regression"
    settings = {wide.GIVEN: dict.fromkeys(("own_l2", "attribute_l2", "factor_l2"), 10.0)}
    settings |= {"LightFM": {"epochs": 1}, sklearn: {"penalty": 10.0, "epochs": 1}}
    monkeypatch.setattr(wide, "SETTINGS", {wide.SHOP: settings})
    limits = Limits(1, "cpu", tmp_path)
    [case] = wide.measure({wide.SHOP: TINY}, 1, limits, tmp_path, lambda done, total, word: None)
    assert 200 < case["purchases"] < 400
    assert case["products"] == 12
    assert set(case["methods"]) == {wide.GIVEN, sklearn}
    for figures in case["methods"].values():
        assert min(figures["steady_s"]) > 0
        assert 0.2 < figures["mrr"][0] <= 1
    assert case["left_out"] == {"LightFM": "its environment could not be installed"}
    benchmark._show("wide", benchmark.Options(), [{**case, "methods": benchmark._figures(case["methods"], wide.GIVEN)}])
    said = capsys.readouterr().out
    assert f"{case['purchases']:,} purchases" in said
    assert "LightFM is left out of a generated shop: its environment could not be installed" in said.replace("\n", " ")


def test_a_folder_without_movielens_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.toml"):
        benchmark.main(benchmark.Options(parts=("wide",), movielens=tmp_path, out=tmp_path / "out.json"))
