"""The benchmark: what it takes for equal, what it makes of repeats, and a tiny run of the whole."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from child import child_of_a_test, within_this_one

from recsys_jax import InputError
from recsys_jax_benchmark import main as benchmark
from recsys_jax_benchmark import process, scoring, training
from recsys_jax_benchmark.process import Failure, Limits, in_process, in_turns, processors
from recsys_jax_benchmark.pytorch import reference
from recsys_jax_benchmark.pytorch.strongest import Strongest

# Products at these angles from the only query: their true scores are the cosines. The first two are (nearly) one.
ANGLES = np.array([0.0, 1e-5, 0.5, 1.0, 2.0])
QUERIES = np.array([[1.0, 0.0]], np.float32)
PRODUCTS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def judged(rows, values=None):
    rows = np.array([rows])
    values = np.cos(ANGLES)[rows] if values is None else np.array([values])
    return scoring.check(values, rows, QUERIES, PRODUCTS, scoring.best_scores(QUERIES, PRODUCTS, 3))


def test_the_reference_is_the_sorted_scores():
    queries, products = scoring.unit_vectors(scoring.Case(7, 50, 4))
    everything = queries.astype(np.float64) @ products.astype(np.float64).T
    expected = np.sort(everything, axis=1)[:, ::-1][:, :4]
    for block in (1, 120, 1 << 20):  # one query, two, all at once
        np.testing.assert_allclose(scoring.best_scores(queries, products, 4, block=block), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("rows", [[0, 1, 2], [1, 0, 2]])
def test_right_answers_and_swaps_of_near_ties_are_accepted(rows):
    assert judged(rows) is None


@pytest.mark.parametrize(
    ("rows", "values", "words"),
    [
        ([0, 2, 1], None, "place 2: the product is off by 0.12"),  # 1 - cos 0.5
        ([0, 1, 3], None, "place 3: the product is off by 0.34"),  # cos 0.5 - cos 1
        ([0, 1, 2], [1.0, 1.0, math.cos(0.5) + 1e-4], "place 3: the score is off by 0.0001"),
        ([0, 1, 2], [1.0, math.nan, math.cos(0.5)], "a score is not a finite number"),
        ([0, 0, 2], None, "a product was found twice"),
        ([0, 1], None, "where (1, 3) were wanted"),
        ([0, 1, -1], None, "a product's row lies outside 0..4"),
    ],
)
def test_wrong_answers_are_refused(rows, values, words):
    assert words in judged(rows, values)


def test_a_training_that_ends_elsewhere_is_refused():
    common = {training.COMMON: [0.29, 0.31]}
    training.check({**common, training.OURS: [0.30, 0.33, 0.28]})
    # As without dropout; a second training that went on from the first one's weights; and no number.
    for wrong in ([0.33, 0.33], [0.27, 0.27], [0.36, 0.28, 0.28], [0.30, math.nan]):
        with pytest.raises(Failure, match=r"recsys_jax ends at losses .*, PyTorch, as commonly written at 0\.3000"):
            training.check({**common, training.OURS: wrong})


@pytest.mark.parametrize("products", [640, 64 * 3 * 32, 64 * 3 * 32 + 1])
def test_all_methods_find_the_same(products, tmp_path):
    for name, method in scoring.METHODS.items():
        case = scoring.Case(1 if name == scoring.ONE else 4, products, 3)
        queries, vectors = scoring.unit_vectors(case)
        best = scoring.best_scores(queries, vectors, case.k)
        search = method(queries, vectors, case.k, Limits(1, "cpu", tmp_path))
        with search.within:
            found = search.answer(search.search())
        assert scoring.check(*found, queries, vectors, best) is None, name


def test_the_strongest_pytorch_trains_what_the_common_one_trains(mall):
    """Without compiling: the weights' names, and from the same loss at the start to the same loss later."""
    customers, products = reference.read_rows(mall / "customers.json"), reference.read_rows(mall / "products.json")
    strongest = Strongest(customers * 10, products, compiled=None)
    model, losses = strongest.train(epochs=60, seed=1)
    common, expected = reference.train(customers * 10, products, epochs=60, seed=2)
    assert list(model.state_dict()) == list(common.state_dict())
    counters = [name for name in model.state_dict() if name.endswith("num_batches_tracked")]
    assert {name: int(model.state_dict()[name]) for name in counters} == {
        "customer_mlp.2.num_batches_tracked": 60 * 4,
        "product_mlp.2.num_batches_tracked": 60 * 4 * 2,
    }
    assert np.mean(losses[:2]) == pytest.approx(np.mean(expected[:2]), abs=0.25)
    assert np.mean(losses[-10:]) == pytest.approx(np.mean(expected[-10:]), abs=0.05)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:2])
    again, same = strongest.train(epochs=60, seed=1)  # nothing is left of the first training
    assert same == losses
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))


@pytest.mark.slow(reason="PyTorch compiles a whole epoch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler uses what PyTorch deprecates
def test_compiled_the_strongest_pytorch_is_the_same(mall):
    customers, products = reference.read_rows(mall / "customers.json"), reference.read_rows(mall / "products.json")
    eager, *compiled = (
        Strongest(customers * 10, products, compiled=how).train(epochs=3, seed=1)[1] for how in (None, "step", "epoch")
    )
    for losses in compiled:
        np.testing.assert_allclose(losses, eager, rtol=1e-4)


def test_a_ratio_is_the_median_of_ratios_within_repeats():
    found = benchmark.figure([4.0, 6.0, 9.0], [1.0, 3.0, 3.0])
    # 4 / 1, 6 / 3, 9 / 3; the ratio of the medians would be 2
    assert found == {"median": 6.0, "min": 4.0, "max": 9.0, "ratio": 3.0, "repeats": [4.0, 6.0, 9.0]}
    assert "ratio" not in benchmark.figure([1.0], [0.0])
    assert benchmark.figure([None, None], [1.0, 2.0]) is None


def test_a_spread_has_the_unit_of_its_median():
    assert benchmark._seconds(12.345) == "12.3 s"
    assert benchmark._cell("time_s", benchmark.figure([0.5, 2.0, 12.0])) == "2.00 s\n0.50 .. 12.0 s"
    expected = "4.56 us (2.0x)\n4.56 .. 4.56 us"
    assert benchmark._cell("time_s", benchmark.figure([4.56e-6], [2.28e-6])) == expected
    assert benchmark._cell("time_s", None) == "-"
    assert benchmark._cell("peak_bytes", benchmark.figure([1.2345e9])) == "1,234"
    assert benchmark._cell("customers_per_s", benchmark.figure([2667.4])) == "2,667"


def test_a_process_has_its_processors_and_nobodys_tuning(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    before = processors()
    with in_process("a child", child_of_a_test, "hello", limits=Limits(1, "cpu", tmp_path)) as ask:
        word, own, environment = ask()
        assert word == "hello"
        assert own == (before[-1:] if hasattr(os, "sched_setaffinity") else before)
        assert environment["OMP_NUM_THREADS"] == "1"
        assert "XLA_FLAGS" not in environment
        with pytest.raises(Failure, match=r"(?s)a child: the process ended with status 1.*ZeroDivisionError"):
            ask()
    assert processors() == before


def test_everyone_is_measured_once_per_repeat_in_an_order_that_rotates():
    assert list(in_turns("abc", 2)) == [
        *((0, 0, "a"), (1, 0, "b"), (2, 0, "c")),
        *((3, 1, "b"), (4, 1, "c"), (5, 1, "a")),
    ]


def test_more_threads_than_processors_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"threads: found 1000000; allowed: 1 to \d+"):
        benchmark.main(benchmark.Options(threads=1_000_000, out=tmp_path / "out.json"))


EAGER = "PyTorch, fastest, not compiled"
PARTS = ("training", "step", "seeds", "requests", "scoring")  # the others have tests of their own


@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        (("training", "step", "scoring"), (training.COMMON, training.OURS)),
        pytest.param(
            PARTS,
            (training.COMMON, EAGER, training.OURS),
            marks=pytest.mark.slow(reason="twenty processes, each with its imports"),
        ),
    ],
)
def test_a_tiny_run(parts, trained, mall, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "METHODS", {name: training.METHODS[name] for name in trained})
    monkeypatch.setattr(training, "TOLERANCE", 10.0)  # one epoch on ten customers: no two agree
    monkeypatch.setattr(training, "EACH", 10.0)
    monkeypatch.setattr(scoring, "CASES", (scoring.Case(5, 93, 3),))
    searched = {"PyTorch", "PyTorch, by groups", "NumPy", "Faiss flat", "recsys_jax"}
    if parts != PARTS:
        searched = {"NumPy", "recsys_jax"}
        monkeypatch.setattr(scoring, "METHODS", {name: scoring.METHODS[name] for name in searched})
        monkeypatch.setattr(training, "TURNS", 10)
        monkeypatch.setenv("NPROC", "1")  # else it is set, and stays
        for module in (benchmark, process, scoring, training):
            monkeypatch.setattr(module, "in_process", within_this_one)
    monkeypatch.setattr(benchmark, "SEEDS", 2)
    out = tmp_path / "out.json"
    benchmark.main(benchmark.Options(mall, parts=parts, epochs=1, repeats=1, out=out))
    result = json.loads(out.read_text("utf-8"))
    assert {"device", "cpu", "cores", "threads", "pinned", "versions", "repeats", "epochs", *parts} < set(result)
    assert {"python", "jax", "numpy", "torch", "faiss-cpu"} < set(result["versions"])
    assert set(result["training"]) == set(trained)
    for figures in result["training"].values():
        times = {"steady_s", "compile_s", "whole_process_s", "later_process_s"}
        assert set(figures) == times | {"final_loss", "peak_bytes"}
        assert figures["whole_process_s"]["median"] > figures["steady_s"]["median"] > 0
    assert set(result["step"]) == {"a step", "without dropout", "matrix products alone", "Adam alone"}
    if parts == PARTS:
        assert set(result["seeds"]) == {"one model", "at once"}
        asked = {f"recsys_jax, {wish}" for wish in ("at_most brand=2", "diversity 0.3", "explain")}
        assert set(result["requests"]) == {"PyTorch", "recsys_jax", *asked}
        for figures in result["requests"].values():
            assert figures["p99_s"]["median"] > figures["p50_s"]["median"] > 0
    (case,) = result["scoring"]
    assert (case["queries"], case["products"], case["k"]) == (5, 93, 3)
    assert set(case["methods"]) == searched
    for figures in case["methods"].values():
        assert set(figures) == {"time_s", "first_call_s", "peak_bytes", "peak_above_held_bytes"}
        assert len(figures["time_s"]["repeats"]) == 1
        assert figures["peak_bytes"]["median"] > 1e6
    assert case["methods"]["recsys_jax"]["time_s"]["ratio"] == 1.0
    said = capsys.readouterr().out
    assert "1 thread(s) for everyone" in said
    assert f"Written to {out}" in said.replace("\n", "")
