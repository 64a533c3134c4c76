"""The benchmark's batch job and scaling curves: what is refused, what is measured, and the picture."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from child import within_this_one

from recsys_jax_benchmark import scaling, scoring, serving
from recsys_jax_benchmark.process import Failure, Limits
from recsys_jax_benchmark.pytorch import reference
from recsys_jax_benchmark.scaling import Curve
from recsys_jax_benchmark.scoring import Case
from recsys_jax_benchmark.serving import Answer, Size

SIZE = Size(customers=60, products=300)


def nothing(done, total, word=""):
    assert 0 <= done < total
    assert word


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "BUYERS", 50)
        folder = tmp_path_factory.mktemp("job")
        next(serving.make(Limits(1, "cpu", folder), folder, SIZE))
    return folder


@pytest.fixture
def limits(tmp_path):
    return Limits(1, "cpu", tmp_path)


@pytest.fixture
def prepared(made, monkeypatch):
    """The files that were made once, in place of new ones."""
    monkeypatch.setattr(
        serving, "prepare", lambda folder, size, limits: shutil.copytree(made, folder, dirs_exist_ok=True)
    )


@pytest.fixture
def here(prepared, monkeypatch, tmp_path):
    """Jobs run in this process; the list of those that did."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    ran = []

    def run(method, customers, out, limits):
        ran.append((method, customers.name))
        serving.METHODS[method](customers, out, limits)
        return 2.0, 1000

    monkeypatch.setattr(serving, "_run", run)
    return ran


def test_the_job_is_measured_in_processes_of_its_own(prepared, limits):
    found = serving.jobs(SIZE, [serving.OURS], 1, limits, nothing)
    assert set(found) == {"recsys_jax"}
    figures = found["recsys_jax"]
    assert set(figures) == {"time_s", "customers_per_s", "peak_bytes"}
    assert all(len(values) == 1 for values in figures.values())
    assert figures["customers_per_s"] == [60 / figures["time_s"][0]]
    assert 0.1 < figures["time_s"][0] < 120
    assert figures["peak_bytes"][0] > 5e7
    json.dumps(found)


def test_the_job_is_checked_before_it_is_timed(here, limits, monkeypatch):
    monkeypatch.setattr(serving, "CHECKED", 40)  # the files were made with more, which does no harm
    found = serving.jobs(SIZE, ["recsys_jax", "PyTorch"], 2, limits, nothing)
    timed = ["recsys_jax", "PyTorch", "PyTorch", "recsys_jax"]  # the order rotates
    assert here == [
        *((name, "checked.parquet") for name in ("PyTorch", "recsys_jax")),
        *((name, "customers.parquet") for name in timed),
    ]
    for figures in found.values():
        assert figures["time_s"] == [2.0, 2.0]
        assert figures["customers_per_s"] == [30.0, 30.0]


def test_other_weights_are_refused(made, here, limits, monkeypatch):
    def prepare(folder, size, limits):
        shutil.copytree(made, folder, dirs_exist_ok=True)
        model, brands = reference.load(folder / "model.pth")
        with torch.no_grad():
            model.skin_type_emb.weight[2] += 0.1
        reference.save(model, brands, folder / "model.pth")

    monkeypatch.setattr(serving, "prepare", prepare)
    with pytest.raises(Failure, match="do not recommend the same, so nothing is timed: customer U"):
        serving.jobs(SIZE, ["recsys_jax"], 1, limits, nothing)
    assert [customers for _, customers in here] == ["checked.parquet"] * 2


def test_half_a_job_is_refused(here, limits, monkeypatch):
    def half(customers, out, limits):
        table, some = pq.read_table(customers), customers.with_name("half.parquet")
        pq.write_table(table if customers.name == "checked.parquet" else table[:30], some)
        serving._torch(some, out, limits)

    monkeypatch.setitem(serving.METHODS, "PyTorch", half)
    with pytest.raises(Failure, match="PyTorch: 300 recommendations; 600 were wanted"):
        serving.jobs(SIZE, ["PyTorch"], 1, limits, nothing)


def answer(products, scores, customers=("u1",)):
    return Answer(np.array(customers), np.array([list(products)]), np.array([scores], np.float32))


# Two products that score nearly the same, and a last one that others may replace.
REFERENCE = answer("abc", [0.9, 0.9 - 1e-6, 0.5])


@pytest.mark.parametrize(
    "found",
    [
        REFERENCE,
        answer("bac", [0.9, 0.9 - 1e-6, 0.5]),
        answer("abd", [0.9, 0.9 - 1e-6, 0.5 - 2e-6]),
    ],
)
def test_the_same_recommendations_are_accepted(found):
    assert serving.check(found, REFERENCE) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (answer("abc", [0.9, 0.9, 0.501]), "customer u1: a score is off by 0.001"),
        (answer("abd", [0.9, 0.9, 0.51]), "customer u1: a wrong product is better by 0.01"),
        (answer("abd", [0.9, 0.9, 0.4]), "customer u1: a product missed is better by 0.1"),
        (answer("acb", [0.9, 0.5, 0.9]), "a product stands before a better one"),
        (answer("aac", [0.9, 0.9, 0.5]), "a product was recommended twice"),
        (answer("abc", [0.9, 0.9, np.nan]), "a score is not a finite number"),
        (answer("ab", [0.9, 0.9]), "the customers, or how many products each gets, are others"),
        (answer("abc", [0.9, 0.9, 0.5], ("u2",)), "the customers, or how many products each gets, are others"),
    ],
)
def test_other_recommendations_are_refused(found, words):
    assert words in serving.check(found, REFERENCE)


def test_all_curves_have_all_points(limits, monkeypatch):
    asked = []

    def measure(cases, methods, repeats, limits, progress):
        asked.append((list(cases), list(methods), repeats))
        size = {name: number for number, name in enumerate(methods, 1)}
        return [
            {
                name: {
                    "time_s": [9.0, case.queries * case.products * case.dimensions * factor / 1e12],
                    "first_call_s": [1.0],
                    "peak_bytes": [1000 * factor],
                }
                for name, factor in size.items()
            }
            for case in cases
        ]

    monkeypatch.setattr(scoring, "measure", measure)
    monkeypatch.setattr(
        scaling, "_trained", lambda count, repeats, limits: (count + 1, {"time_s": [3.0, 2.0], "peak_bytes": [7]})
    )
    curves = scaling.measure(2, limits, nothing)
    assert [methods for _, methods, _ in asked] == [
        ["PyTorch", "Faiss flat", "recsys_jax"],
        ["PyTorch", "Faiss flat", "recsys_jax, one customer"],
    ]
    for cases, _, repeats in asked:
        assert len(set(cases)) == len(cases)
        assert repeats == 2
    assert [curve["x"] for curve in curves] == ["products", "queries", "dimensions", "products", "purchases"]
    for curve, drawn in zip(scaling.CURVES, curves[:-1], strict=True):
        assert set(drawn["methods"]) == {"PyTorch", "Faiss flat", "recsys_jax"}
        for factor, name in enumerate(("PyTorch", "Faiss flat", "recsys_jax"), 1):
            line = drawn["methods"][name]
            assert line["x"] == [getattr(case, curve.x) for case in curve.cases]
            assert line["time_s"] == [
                case.queries * case.products * case.dimensions * factor / 1e12 for case in curve.cases
            ]
            assert line["peak_bytes"] == [1000 * factor] * len(curve.cases)
    assert curves[-1]["methods"] == {
        "recsys_jax": {
            "x": [count + 1 for count in scaling.PURCHASES],
            "time_s": [2.0] * len(scaling.PURCHASES),
            "peak_bytes": [7] * len(scaling.PURCHASES),
        }
    }
    json.dumps(curves)


def test_a_search_and_a_training_are_measured_and_drawn(limits, tmp_path, monkeypatch):
    monkeypatch.setenv("NPROC", "1")  # else it is set, and stays
    for module in (scaling, scoring):
        monkeypatch.setattr(module, "in_process", within_this_one)
    few = (Curve("one customer", "products", (Case(1, 100),), scoring.ONE),)
    curves = scaling.measure(1, limits, nothing, curves=few, purchases=(60,))
    search, training = (curve["methods"]["recsys_jax"] for curve in curves)
    assert search["x"] == [100]
    assert abs(training["x"][0] - 60) < 30
    for line in (search, training):
        assert 0 < line["time_s"][0] < 1
        assert line["peak_bytes"][0] > 5e7
    assert set(curves[0]["methods"]) == {"PyTorch", "Faiss flat", "recsys_jax"}
    scaling.draw(tmp_path / "scaling.png", curves)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_of_the_picture_is_each_methods(tmp_path):
    def drawn(**methods):
        scaling.draw(tmp_path / "one.png", [{"title": "t", "x": "products", "of": "search", "methods": methods}])
        return (tmp_path / "one.png").read_bytes()

    ours = {"x": [1, 10, 1000], "time_s": [1e-5, 1e-3, 1.0], "peak_bytes": [1e8, 2e8, 3e9]}
    other = {**ours, "time_s": [1e-4, 1e-3, 2.0]}
    pictures = [drawn(recsys_jax=ours), drawn(recsys_jax=ours, PyTorch=other), drawn(recsys_jax=other)]
    assert len(set(pictures)) == 3
    assert drawn(recsys_jax=ours) == pictures[0]
