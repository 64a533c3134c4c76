"""The benchmark: what it takes for equal, what it makes of repeats, and a tiny run of the whole."""

import json
import math
import os

import _benchmark_scoring as scoring
import _benchmark_training as training
import benchmark
import numpy as np
import pytest
from _benchmark_process import Failure, Limits, Process, processors

from recsys_jax import InputError

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
    losses = {training.COMMON: 0.30, training.OURS: 0.34}
    training.check(losses)
    for wrong in (0.36, 0.24, math.nan):
        with pytest.raises(Failure, match=r"recsys_jax ends at loss .*, PyTorch, as commonly written at 0\.3000"):
            training.check({**losses, training.OURS: wrong})


def test_a_ratio_is_the_median_of_ratios_within_repeats():
    found = benchmark.figure([4.0, 6.0, 9.0], [1.0, 3.0, 3.0])
    # 4 / 1, 6 / 3, 9 / 3; the ratio of the medians would be 2
    assert found == {"median": 6.0, "min": 4.0, "max": 9.0, "ratio": 3.0, "repeats": [4.0, 6.0, 9.0]}
    assert "ratio" not in benchmark.figure([1.0], [0.0])
    assert benchmark.figure([None, None], [1.0, 2.0]) is None


def test_a_spread_has_the_unit_of_its_median():
    assert benchmark._seconds(12.345) == "12.3 s"
    assert benchmark._cell(benchmark.figure([0.5, 2.0, 12.0])) == "2.00 s\n0.50 .. 12.0 s"
    assert benchmark._cell(benchmark.figure([4.56e-6], [2.28e-6])) == "4.56 us (2.0x)\n4.56 .. 4.56 us"
    assert benchmark._cell(None) == "-"


def test_a_process_has_its_processors_and_nobodys_tuning(tmp_path, monkeypatch):
    script = tmp_path / "child.py"
    script.write_text(
        "import os\nfrom _benchmark_process import processors, serve\n"
        "serve({'look': lambda: print('noise') or (processors(), dict(os.environ)), 'break': lambda: 1 / 0})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(benchmark.DEFAULT.parents[1] / "scripts"))
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    before = processors()
    with Process("a child", script, limits=Limits(1, "cpu", tmp_path)) as process:
        own, environment = process.ask("look")
        assert own == (before[-1:] if hasattr(os, "sched_setaffinity") else before)
        assert environment["OMP_NUM_THREADS"] == "1"
        assert "XLA_FLAGS" not in environment
        with pytest.raises(Failure, match=r"(?s)a child: the process ended with status 1.*ZeroDivisionError"):
            process.ask("break")
    assert processors() == before


def test_more_threads_than_processors_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"threads: found 1000000; allowed: 1 to \d+"):
        benchmark.main(benchmark.Options(threads=1_000_000, out=tmp_path / "out.json"))


def test_a_tiny_run_of_the_whole(mall, tmp_path, monkeypatch, capsys):
    few = {name: training.CONTENDERS[name] for name in (training.COMMON, training.OURS)}
    monkeypatch.setattr(training, "CONTENDERS", few)
    monkeypatch.setattr(training, "TOLERANCE", 10.0)  # one epoch on ten customers: no two agree
    monkeypatch.setattr(scoring, "CASES", (scoring.Case(5, 93, 3),))
    out = tmp_path / "out.json"
    benchmark.main(benchmark.Options(mall, epochs=1, repeats=1, out=out))
    result = json.loads(out.read_text("utf-8"))
    assert {"device", "cpu", "cores", "threads", "pinned", "versions", "repeats", "epochs"} < set(result)
    assert {"python", "jax", "numpy", "torch", "faiss-cpu"} < set(result["versions"])
    memory = {"peak_bytes", "peak_above_held_bytes"}
    assert set(result["training"]) == set(few)
    for figures in result["training"].values():
        times = {"steady_s", "compile_s", "whole_process_s", "later_process_s"}
        assert set(figures) == times | {"final_loss"} | memory
        assert figures["whole_process_s"]["median"] > figures["steady_s"]["median"] > 0
    (case,) = result["scoring"]
    assert (case["queries"], case["products"], case["k"]) == (5, 93, 3)
    assert set(case["contenders"]) == {"PyTorch", "NumPy", "Faiss flat", "recsys_jax"}
    for figures in case["contenders"].values():
        assert set(figures) == {"time_s", "first_call_s"} | memory
        assert len(figures["time_s"]["repeats"]) == 1
        assert figures["peak_bytes"]["median"] > 1e6
    assert case["contenders"]["recsys_jax"]["time_s"]["ratio"] == 1.0
    said = capsys.readouterr().out
    assert "1 thread(s) for everyone" in said
    assert f"Written to {out}" in said.replace("\n", "")
