"""The comparison with other recommenders: the file it reads, ranks with ties, tuning on inner folds, mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from recsys_jax.models import metrics
from recsys_jax_benchmark.peers import __main__ as peers
from recsys_jax_benchmark.peers import task as peers_task


def arrays(customers=40, products=6, seed=0):
    """A toy split: two kinds of customers, each with products of its own; the last eight customers are held out."""
    rng = np.random.default_rng(seed)
    kind = np.arange(customers) % 2
    bought = np.array([(row, rng.integers(3) + 3 * kind[row]) for row in range(customers)], np.int32)
    inner = np.where(np.arange(customers) < customers - 8, np.arange(customers) // 2 % 4, -1).astype(np.int32)
    sides = {"customers": sparse.csr_matrix(np.eye(2)[kind]), "products": sparse.csr_matrix(np.eye(products))}
    result = {"train": bought[: customers - 8], "queries": bought[customers - 8 :], "inner": inner}
    result["owned"] = np.zeros((0, 2), np.int32)
    for side, matrix in sides.items():
        result |= {f"{side}_{part}": getattr(matrix, part) for part in ("indptr", "indices", "data")}
        result[f"{side}_shape"] = np.array(matrix.shape)
    return result


def write(folder, changed=None, without=()):
    """The toy split as a file, with some arrays changed or left out."""
    folder.mkdir(exist_ok=True)
    kept = {name: array for name, array in {**arrays(), **(changed or {})}.items() if name not in without}
    np.savez(folder / "split.npz", **kept)
    return folder


def counting(task, setting, watch):
    """A fake peer that knows the answer from epoch `right` on and says the opposite before."""
    likes = np.zeros((2, task.products.shape[0]))
    np.add.at(likes, (task.customers.toarray()[task.pairs[:, 0]].argmax(1), task.pairs[:, 1]), 1)
    epoch, more = 0, True
    while more:
        epoch += 1
        sign = 1 if epoch >= setting["right"] else -1
        more = watch(epoch, lambda sign=sign: sign * task.asked.toarray() @ likes)


def test_the_file_is_read_as_written(tmp_path):
    split = peers.read_split(write(tmp_path))
    assert split.customers.shape == (40, 2)
    assert split.products.shape == (6, 6)
    assert (split.customers.toarray()[:2] == np.eye(2)).all()
    assert len(split.train) == 32
    assert len(split.queries) == 8


@pytest.mark.parametrize(
    ("changed", "without", "sentence"),
    [
        ({}, ["inner"], "the array inner is missing; found: train, queries"),
        ({}, ["products_data"], "the array products_data is missing"),
        ({"train": np.array([{}])}, [], "this is no file of numpy.savez without objects"),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path, changed, without, sentence):
    with pytest.raises(peers.InputError, match=sentence):
        peers.read_split(write(tmp_path, changed, without))


def test_no_file_and_no_such_file_are_sentences(tmp_path):
    with pytest.raises(peers.InputError, match="there is no such file; FOLDER is a folder with a"):
        peers.read_split(tmp_path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    whole = write(tmp_path / "whole") / "split.npz"
    for content in (b"", b"a,b", b"PK\x03\x04 cut off", whole.read_bytes()[:900], (tmp_path / "one.npy").read_bytes()):
        (tmp_path / "split.npz").write_bytes(content)
        with pytest.raises(peers.InputError, match=r"this is no file of numpy\.savez"):
            peers.read_split(tmp_path)


def test_ranks_count_ties_by_hand():
    scores = np.array([[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    better, equal = peers.ranks(scores, np.array([0, 0, 0, 1, 0]), np.array([0, 3, 1, 2, -1]))
    assert better.tolist() == [0, 2, 3, 0, 4]  # the last was not to be had: all four are better
    assert equal.tolist() == [2, 1, 1, 4, 1]
    assert better.dtype == equal.dtype == np.int32


def test_the_reciprocal_rank_expects_over_ties_by_hand():
    found = peers.mrr(np.array([0, 9]), np.array([2, 2]))
    assert found == pytest.approx(((1 + 1 / 2) / 2 + (1 / 10 + 1 / 11) / 2) / 2)


def test_ranks_and_reciprocal_ranks_are_ours():
    rng = np.random.default_rng(0)
    scores, rows = rng.integers(0, 5, (30, 20)).astype(float), rng.integers(0, 30, 5000)
    targets = rng.integers(0, 20, 5000)
    better, equal = peers.ranks(scores, rows, targets)
    ours = metrics.ranks(scores[rows], targets)
    assert (better == ours[0]).all()
    assert (equal == ours[1]).all()
    assert peers.mrr(better, equal) == pytest.approx(metrics.reciprocal_rank(ours).mean(), rel=1e-6)


def test_like_products_score_exactly_alike():
    rng = np.random.default_rng(0)
    products = rng.normal(size=(7, 33)).astype(np.float32)[rng.integers(0, 7, 101)]
    scores = peers_task.score_products(rng.normal(size=(5, 33)), products, products[:, 0])
    _, where = peers_task.distinct(products)
    for one in range(7):
        assert (np.ptp(scores[:, where == one], axis=1) == 0).all()


def test_only_products_of_training_are_ranked(tmp_path):
    changed = {"queries": np.array([[38, 1], [39, 5], [36, 5]]), "train": np.array([[0, 1], [1, 3], [2, 1]])}
    task = peers.outer_task(peers.read_split(write(tmp_path, changed)))
    assert (task.products.toarray() == np.eye(6)[[1, 3]]).all()
    assert task.targets.tolist() == [0, -1, -1]
    assert task.pairs.tolist() == [[0, 0], [1, 1], [2, 0]]
    better, equal = peers.ranks(peers.popularity(task), task.rows, task.targets)
    assert (better.tolist(), equal.tolist()) == ([0, 2, 2], [1, 1, 1])


def test_what_a_customer_owns_is_not_ranked(tmp_path):
    """Popularity has 0 before 1 and 2, and ties these; of who owns 0 and 2, product 1 stands first."""
    changed = {"train": np.array([[0, 0], [1, 0], [2, 1], [3, 2]]), "queries": np.array([[38, 1], [39, 1], [37, 4]])}
    changed["owned"] = np.array([[39, 0], [39, 2], [37, 0]])
    task = peers.outer_task(peers.read_split(write(tmp_path, changed)))
    better, equal = peers.ranks(peers.popularity(task), task.rows, task.targets, task.owned)
    assert (better.tolist(), equal.tolist()) == ([1, 0, 2], [2, 1, 1])


def test_inner_folds_never_see_the_queries(tmp_path):
    split = peers.read_split(write(tmp_path))
    inner = peers.inner_task(split)
    held = np.flatnonzero(split.inner == 0)
    assert len(inner.rows) == np.isin(split.train[:, 0], held).sum()
    assert inner.customers.shape[0] == (split.inner > 0).sum()
    assert len(inner.pairs) + len(inner.rows) == len(split.train)


def test_each_query_asks_with_its_customers_attributes(tmp_path):
    split = peers.read_split(write(tmp_path))
    task = peers.outer_task(split)
    assert task.asked.shape == (2, 2)
    assert (task.asked.toarray()[task.rows] == split.customers.toarray()[split.queries[:, 0]]).all()


def test_the_setting_and_the_epoch_of_the_best_inner_mrr_are_chosen(tmp_path):
    task, said = peers.inner_task(peers.read_split(write(tmp_path))), []
    settings = [
        {"name": "late", "right": 9, "every": 1, "most": 20},
        {"name": "never measured right", "right": 7, "every": 2, "most": 6},
        {"name": "third", "right": 3, "every": 1, "most": 20},
    ]
    trials = peers.search(task, counting, settings, said.append)
    # PATIENCE = 4 measurements after the best: "late" is given up after 5, long before it would be right.
    assert [[epoch for epoch, _ in trial.curve] for trial in trials] == [[1, 2, 3, 4, 5], [2, 4, 6], [*range(1, 8)]]
    best = peers.choose(trials)
    assert (best.setting["name"], best.best[0]) == ("third", 3)
    assert best.best[1] > trials[0].best[1]
    assert len(said) == 3
    assert "name=third" in said[2]
    assert "every" not in said[2]


def test_divergence_ends_a_setting_but_not_the_search(tmp_path):
    task = peers.inner_task(peers.read_split(write(tmp_path)))

    def broken(task, setting, watch):
        if setting["right"] == 0:
            watch(1, lambda: np.full((task.asked.shape[0], task.products.shape[0]), np.nan))
        counting(task, setting, watch)

    said = []
    trials = peers.search(task, broken, [{"right": right, "every": 1, "most": 3} for right in (0, 1)], said.append)
    assert trials[0].curve == []
    assert "diverged" in said[0]
    assert peers.choose(trials) is trials[1]
    with pytest.raises(peers.InputError, match="no setting could be trained"):
        peers.choose(trials[:1])


@pytest.mark.parametrize("peer", ["torch", "sklearn"])
def test_a_given_setting_is_trained_untuned_to_the_best_regression(tmp_path, peer):
    """Toy customers of a kind share their attributes, so the gradient is that of a table of shares, by hand."""
    split = peers.read_split(write(tmp_path))
    task = peers.outer_task(split)
    scores, seconds = peers.final_scores(task, peers.PEERS[peer][1], {"penalty": 2.0}, 1)
    kind = task.customers.toarray()[task.pairs[:, 0]].argmax(1)
    logits = scores[task.asked.toarray().argmax(1).argsort()]  # (kinds, products)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    bought = np.zeros_like(shares)
    np.add.at(bought, (kind, task.pairs[:, 1]), 1)
    missed = bought - bought.sum(1, keepdims=True) * shares  # penalty . weights, and zero for the bias: their sum
    np.testing.assert_allclose(missed.sum(0), 0, atol=0.02)
    np.testing.assert_allclose(missed[0] - missed[1], 2.0 * (logits[0] - logits[1]), atol=0.02)
    assert seconds > 0
    said = []
    path = peers.run(peer, tmp_path, said.append, {"penalty": 2.0, "epochs": 1})
    with np.load(path, allow_pickle=False) as file:
        record = json.loads(str(file["settings"]))
        assert (file["better"] < 3).all()  # the kind's own three products come first
    assert (record["chosen"], record["tried"]) == ({"penalty": 2.0, "epochs": 1}, [])
    assert 0 < record["training_seconds"] <= record["seconds"] + 0.05
    assert said[-2].startswith("Given: penalty=2.0 epochs=1; ")


def test_a_run_trains_anew_for_the_chosen_epochs_and_writes_ranks(tmp_path, monkeypatch):
    write(tmp_path)
    trained = []

    def train(task, setting, watch):
        def counted(epoch, scores):
            trained[-1][1] = epoch
            return watch(epoch, scores)

        trained.append([len(task.pairs), 0])
        counting(task, setting, counted)

    settings = [{"right": right, "every": 1, "most": 9} for right in (2, 1)]
    monkeypatch.setitem(peers.PEERS, "lightfm", (lambda task: settings, train))
    said = []
    path = peers.run("lightfm", tmp_path, said.append)
    split = peers.read_split(tmp_path)
    inner = (split.inner[split.train[:, 0]] > 0).sum()
    assert trained == [[inner, 6], [inner, 5], [len(split.train), 2]]  # equal scores: the first setting, epoch 2
    with np.load(path, allow_pickle=False) as file:
        better, equal, record = file["better"], file["equal"], json.loads(str(file["settings"]))
    assert better.dtype == equal.dtype == np.int32
    assert better.shape == equal.shape == (8,)
    assert (better < 3).all()  # the kind's own three products come first
    assert record["chosen"]["epochs"] == 2
    assert [len(trial["curve"]) for trial in record["tried"]] == [6, 5]
    assert {"numpy", "scipy", "python"} <= set(record["versions"])
    assert [file.name for file in tmp_path.iterdir() if "part" in file.name] == []
    assert said[-1] == f"Written to {path}"


@pytest.mark.parametrize("peer", peers.PEERS)
def test_every_setting_says_when_it_is_measured(tmp_path, peer):
    settings = peers.PEERS[peer][0](peers.inner_task(peers.read_split(write(tmp_path))))
    assert all(0 < setting["every"] <= setting["most"] for setting in settings)
    assert len({peers.told(setting) for setting in settings}) == len(settings)


@pytest.mark.parametrize("peer", ["irspack", "lightfm", "rectools"])
def test_versions_are_pinned(peer):
    lines = Path(peers.__file__).with_name(f"{peer}.txt").read_text(encoding="utf-8").splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))


def test_mistakes_on_the_command_line_are_sentences(tmp_path, capsys):
    for words, sentence in [
        (["lightfm", str(tmp_path)], "error: " + str(tmp_path / "split.npz") + ": there is no such file"),
        (["other", str(tmp_path)], "error: argument peer: invalid choice: 'other'"),
        (["lightfm"], "error: the following arguments are required: FOLDER"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            peers.main(words)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith(sentence)


def test_started_again_it_needs_nothing_of_ours(tmp_path):
    """As in a peer's environment, where neither recsys_jax nor this package can be found by its full name."""
    code = f"import sys; sys.modules |= dict.fromkeys(['recsys_jax', 'recsys_jax_benchmark']); {peers.AGAIN}"
    words = [sys.executable, "-c", code, str(Path(peers.__file__).parents[1]), "lightfm", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (
        done.stderr == f"error: {tmp_path / 'split.npz'}: there is no such file; FOLDER is a folder with a split.npz\n"
    )


def test_a_missing_peer_starts_again_in_its_own_environment(tmp_path, monkeypatch, capsys):
    script, home = tmp_path / "package" / "peers" / "__main__.py", tmp_path / "homes" / "lightfm"
    script.parent.mkdir(parents=True)
    script.with_name("lightfm.txt").write_text("lightfm-next==1\n", encoding="utf-8")
    called, started = [], []
    monkeypatch.setattr(peers, "HOMES", tmp_path / "homes")
    monkeypatch.setattr(peers, "__file__", str(script))
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)

    def install(words, check):
        home.mkdir(parents=True, exist_ok=True)
        called.append(words)

    monkeypatch.setattr(peers.subprocess, "run", install)
    monkeypatch.setattr(peers.os, "execv", lambda python, words: started.append(words))
    peers.at_home("lightfm", Path("a folder"))
    assert [words[1:3] for words in called] == [["-m", "venv"], ["-m", "pip"]]
    assert "lightfm is not installed here: installing lightfm.txt into" in capsys.readouterr().out
    peers.at_home("lightfm", Path("a folder"))
    assert len(called) == 2  # what is there is used again
    assert "going on in" in capsys.readouterr().out
    assert started[0][1:] == ["-c", peers.AGAIN, str(tmp_path / "package"), "lightfm", "a folder"]
    monkeypatch.setattr(sys, "prefix", str(home))
    with pytest.raises(peers.InputError, match="remove the folder"):
        peers.at_home("lightfm", Path("a folder"))
