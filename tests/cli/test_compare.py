"""The command `compare` from a dataset folder to its files, and its bridge to other recommenders."""

import csv
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import done

from recsys_jax import fit, load_dataset, load_model
from recsys_jax.cli import compare, find
from recsys_jax.cli import run as main_job
from recsys_jax.console.options import parse
from recsys_jax.data.features import FeatureSpace
from recsys_jax.data.splits import Fold, hold_out_split, product_split
from recsys_jax.errors import InputError
from recsys_jax.evaluation.baselines import popularities
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.methods import read_configs, tune
from recsys_jax.evaluation.queries import Queries
from recsys_jax.synthetic.populations import population, write_population
from recsys_jax_benchmark.peers import split as peer_split
from recsys_jax_benchmark.peers import task as peers_task
from recsys_jax_benchmark.peers.split import ask, attribute_matrix, of_ranks, write_split

QUICK = """\
["two passes"]
recipe = "deep"
epochs = 2
batch_size = 64
"""
FIXED = """\
["fixed"]
recipe = "wide"
own_l2 = 100
attribute_l2 = inf
factor_l2 = inf
"""

# What stands in for the peers' process: everything sold most, or a sentence.
FAKE = """\
import json, pathlib, sys
import numpy as np
from recsys_jax_benchmark.peers import task as t
peer, folder = sys.argv[1], pathlib.Path(sys.argv[2])
print("   1/2   inner MRR 0.5000 at epoch 1", flush=True)
if peer == "rectools":
    sys.exit("error: no settings today")
task = t.outer_task(t.read_split(folder))
better, equal = t.ranks(t.popularity(task), task.rows, task.targets)
record = json.dumps({"chosen": {"size": 3, "every": 1, "most": 9}, "seconds": 2.5})
np.savez(folder / f"peer-{peer}.npz", better=better, equal=equal, settings=np.array(record))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """300 customers and 20 products."""
    folder = tmp_path_factory.mktemp("shop")
    write_population(population(300, 20, 0), folder)
    (folder / "my.toml").write_text(QUICK + FIXED, encoding="utf-8")
    (folder / "fixed.toml").write_text(FIXED, encoding="utf-8")
    return folder


@pytest.fixture
def fake_peers(tmp_path, monkeypatch):
    """Peers that need no environment of their own."""
    (tmp_path / "peers.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setattr(peer_split, "COMMAND", [sys.executable, str(tmp_path / "peers.py")])


def run(folder, out, **changed):
    """What follows, and the parsed comparison.json."""
    options = {"configs": folder / "my.toml", "seeds": 2, "folds": 2, "out": out, **changed}
    following = compare.main(compare.Options(folder, **options))
    return following, json.loads((out / "comparison.json").read_text(encoding="utf-8"))


def test_from_a_folder_to_a_table_its_files_and_what_follows(folder, tmp_path, capsys, fake_peers):
    changed = {"protocol": "hold-out", "folds": 3, "tune": 1, "peers": ("rectools", "lightfm")}
    following, document = run(folder, tmp_path / "out", **changed)
    printed = capsys.readouterr().out
    methods = {one["method"]: one for one in document["methods"]}
    assert {"two passes", "fixed", "deep, tuned", "popularity", "naive Bayes", "LightFM"} <= set(methods)
    assert {"random", "inverse popularity"} <= set(methods)
    assert "RecTools DSSM" not in methods
    means = [one["metrics"]["mrr"]["mean"] for one in document["methods"]]
    assert means == sorted(means, reverse=True)
    # The stand-in gives everybody what sold most.
    assert methods["LightFM"]["metrics"]["mrr"]["mean"] == pytest.approx(
        methods["popularity"]["metrics"]["mrr"]["mean"]
    )
    assert methods["LightFM"]["chosen in each fold"] == ["size 3"]
    assert methods["two passes"]["seeds"] == [0, 1]
    assert methods["fixed"]["seeds"] == []
    assert "epochs 10" in methods["deep, tuned"]["chosen in each fold"][0]
    dataset = load_dataset(folder)
    queries = int(hold_out_split(dataset, 3).folds[0].queries.sum())
    assert document["queries"] == queries
    assert f"n = {queries:,} purchases" in " ".join(printed.split())
    [problem] = document["left out"]
    assert problem == "RecTools DSSM is left out: rectools ended with status 1: no settings today"
    assert "RecTools DSSM is left out" in printed
    shown = printed.splitlines()
    assert len(shown) <= 10 + len(document["left out"]) * 2  # what follows, a note on the data, and the mistake
    figures = r"  MRR 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\)"
    recipes = {*document["recipes"], "deep, tuned"}
    best = next(one["method"] for one in document["methods"] if one["method"] in recipes)
    assert re.search(rf"^  {best} *{figures}$", printed, flags=re.M)
    assert re.search(
        rf"^  .* \(best\) *{figures}  ((worse|better) than (it|\w{1, 5})|inside the noise)$", printed, flags=re.M
    )
    assert re.search(rf"^  chance *{figures}  (worse than (it|\w{1, 5})|inside the noise)$", printed, flags=re.M)
    assert max(len(line) for line in shown if str(tmp_path) not in line) <= 80
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert all(f"| {method} | " in page for method in methods)
    assert document["finding"] in page
    with (tmp_path / "out" / "comparison.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == [one["method"] for one in document["methods"]]
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert following is None  # no recipe is better than every simple method


def test_the_picture_says_that_customers_have_seen_the_answer(folder, tmp_path, monkeypatch):
    mall, titles = Path(__file__).parents[2] / "data" / "amoremall", []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "comparison_differences", lambda path, result, title: titles.append(title))
    done("personas", mall, "--encoder", "lsa", "--k", 3)
    for shop in (mall, folder):
        run(shop, tmp_path / shop.name, configs=folder / "fixed.toml", seeds=1, protocol="hold-out")
    assert ["with the leak" in title for title in titles] == [True, False]


def test_folds_are_asked_together_and_each_has_a_folder_for_peers(folder, tmp_path, fake_peers):
    _, document = run(folder, tmp_path / "out", peers=("lightfm",), configs=folder / "fixed.toml")
    assert document["queries"] == len(load_dataset(folder).purchases)
    peer = next(one for one in document["methods"] if one["method"] == "LightFM")
    assert peer["seconds"] == 5.0
    assert [(tmp_path / "out" / "peers" / f"fold-{number}" / "split.npz").is_file() for number in (1, 2)] == [True] * 2


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seeds": 0}, "seeds: found 0; allowed: 1 or more"),
        ({"tune": -1}, "tune: found -1; allowed: 0 or more"),
        ({"seed": -1}, "seed: found -1; allowed: from 0 to 4294967295"),
        (
            {"protocol": "new-products", "peers": ("lightfm",)},
            "peers: found lightfm; allowed: with protocols that rank",
        ),
        ({"protocol": "new-products", "tune": 3}, "tune: found 3; allowed: with other protocols than new-products"),
        ({"configs": Path("absent.toml")}, "absent.toml: there is no such file"),
        ({"seed": 2**32}, "seed: found 4294967296; allowed: from 0 to 4294967295"),
        ({"seeds": 10**21}, "seed: found 999999999999999999999; allowed: from 0 to 4294967295"),
    ],
)
def test_mistakes_are_sentences(folder, tmp_path, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        run(folder, tmp_path, **changed)


@pytest.mark.parametrize("name", ["popularity", "LightFM", "deep, tuned"])
def test_a_recipe_with_the_name_of_another_method_is_a_sentence(folder, tmp_path, name):
    path = tmp_path / "my.toml"
    path.write_text(f'["{name}"]\nrecipe = "wide"\n', encoding="utf-8")
    with pytest.raises(InputError, match=f"configs: found a recipe named '{name}'; allowed: other names than"):
        run(folder, tmp_path / "out", configs=path, peers=("lightfm",))


@pytest.mark.parametrize("name", ["deep", "wide"])
def test_what_was_tuned_is_trained_and_compared(folder, tmp_path, name, monkeypatch):
    """The recipe is the one of a tuning with all customers, and "Next:" trains it where it is better than others."""
    monkeypatch.setattr(Interval, "reading", "better")
    monkeypatch.setattr(
        compare, "comparison_differences", lambda *anything: None
    )  # which takes no better than the best
    out = tmp_path / "my out"
    (tmp_path / "poor.toml").write_text('[poor]\nrecipe = "deep"\nepochs = 1\nlearning_rate = 1e-6\n', "utf-8")
    changed = {"configs": tmp_path / "poor.toml", "tune": 2, "tune_recipe": name}
    following, document = run(folder, out, **changed, seeds=1, protocol="hold-out")
    ranked = [one["method"] for one in document["methods"]]
    assert ranked.index(f"{name}, tuned") < ranked.index("poor")
    data = load_dataset(folder)
    found = tune(data, np.ones(len(data.purchases), bool), 2, recipe=name).config
    assert read_configs(out / "tuned.toml") == {"tuned": found}
    assert shlex.split(following) == ["train", str(folder), "--config", str(out / "tuned.toml")]
    assert "tuned.toml" in (out / "report.md").read_text("utf-8")
    main, _, words = find([*shlex.split(following), "--run", str(tmp_path / "run"), "--checkpoint-every", "0"])
    main(parse(main, "train", words))
    model = load_model(tmp_path / "run")
    assert model.config == found
    if name == "wide":  # a recipe with one best fit: the same model, penalties and all
        same = fit(data, found)
        assert model.product_embeddings.tolist() == same.product_embeddings.tolist()
        assert model.chosen == same.chosen
    _, document = run(folder, tmp_path / "again", configs=out / "tuned.toml", seeds=1, protocol="hold-out")
    assert "tuned" in {one["method"] for one in document["methods"]}


# The bridge


def test_a_fold_is_what_the_peers_read(folder, tmp_path):
    dataset = load_dataset(folder)
    fold = hold_out_split(dataset, 4).folds[0]
    write_split(tmp_path, dataset, fold)
    split = peers_task.read_split(tmp_path)
    assert (len(split.train), len(split.queries)) == (fold.train.sum(), fold.queries.sum())
    # Each is the same purchase: the same pairs are equal, and products are bought as often.
    for ours, theirs in (
        (dataset.purchases[fold.train], split.train),
        (dataset.purchases[fold.queries], split.queries),
    ):
        for side in (0, 1):
            assert len({*zip(ours[:, side].tolist(), theirs[:, side].tolist(), strict=True)}) == len({*ours[:, side]})
    # What sold most, ranked by them, stands where ours stands, where all products were bought.
    task = peers_task.outer_task(split)
    assert task.products.shape[0] == len(dataset.product_ids)
    mrr = peers_task.measure(task, peers_task.popularity(task))
    popularity = popularities(dataset)["popularity"].learn(dataset, fold, 0, lambda *told: None).scorers(dataset)[0]
    ours, _, _ = Queries.of(dataset, fold, (10,)).values(popularity)
    assert mrr == pytest.approx(ours["mrr"].mean())


def test_customers_on_both_sides_have_a_row_for_each(folder, tmp_path):
    dataset = load_dataset(folder)
    purchases = np.stack([np.repeat(np.arange(40), 2), np.arange(80) % 20], axis=1).astype(dataset.purchases.dtype)
    dataset = replace(dataset, purchases=purchases)
    later = np.arange(80) % 2 == 1
    write_split(tmp_path, dataset, Fold(~later, later))
    split = peers_task.read_split(tmp_path)
    assert split.customers.shape[0] == 80
    assert (split.customers[split.train[:, 0]].toarray() == split.customers[split.queries[:, 0]].toarray()).all()
    assert (split.inner[split.queries[:, 0]] == -1).all()


@pytest.mark.parametrize("repeats", [False, True])
def test_what_is_owned_is_ranked_by_peers_as_it_is_here(folder, tmp_path, repeats):
    """What sold most, ranked by them, stands where ours stands, for customers who bought before."""
    dataset = load_dataset(folder)
    rng = np.random.default_rng(0)
    products = len(dataset.product_ids)
    bought = [[c, p] for c in range(20) for p in sorted(rng.choice(products, 8, replace=False))]
    bought += [[c, p] for c in (20, 21) for p in range(products)]  # all are sold in training
    dataset = replace(dataset, purchases=np.array(bought, dataset.purchases.dtype))
    later = (np.arange(len(bought)) % 3 == 0) & (dataset.purchases[:, 0] < 20)
    fold = Fold(~later, later, repeats=repeats)
    write_split(tmp_path, dataset, fold)
    task = peers_task.outer_task(peers_task.read_split(tmp_path))
    popularity = popularities(dataset)["popularity"].learn(dataset, fold, 0, lambda *told: None).scorers(dataset)[0]
    ours, _, _ = Queries.of(dataset, fold, (10,)).values(popularity)
    assert peers_task.measure(task, peers_task.popularity(task)) == pytest.approx(ours["mrr"].mean())
    assert bool(task.owned.sum()) is not repeats


def test_new_products_are_no_task_for_peers(folder, tmp_path):
    dataset = load_dataset(folder)
    with pytest.raises(InputError, match="peers: found the protocol new-products"):
        write_split(tmp_path, dataset, product_split(dataset, 2).folds[0])


def test_attributes_are_ones_by_hand(films):
    dataset = load_dataset(films)
    space = FeatureSpace.fit(dataset.schema.customers.features, dataset.customers, [0, 1, 2])
    matrix = attribute_matrix(space, space.encode(dataset.customers), 3).toarray()
    # likes: Drama, Crime, Comedy, unknown, missing; country: KR, FR, unknown, missing; age: ranges, missing.
    assert matrix[:, :5].tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert matrix[:, 5:9].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    age = matrix[:, 9:]
    assert (age.sum(axis=1) == 1).all()
    assert age[1, -1] == 1  # v2 states none
    assert (age[2] == age[3]).all()  # 70 lies beyond what was learned: the last range
    assert (age[0] != age[2]).any()


def test_a_peer_is_told_of_while_it_works_and_its_mistake_is_a_sentence(folder, tmp_path, fake_peers):
    dataset = load_dataset(folder)
    write_split(tmp_path, dataset, hold_out_split(dataset, 4).folds[0])
    told = []
    found = ask("lightfm", tmp_path, lambda *one: told.append(one))
    assert told == [(1, 3, "setting 1/2, inner MRR 0.5000")]
    assert found.values["mrr"].shape == (1, int(hold_out_split(dataset, 4).folds[0].queries.sum()))
    with pytest.raises(InputError, match=r"rectools ended with status 1: no settings today"):
        ask("rectools", tmp_path, lambda *one: told.append(one))


def test_without_a_folder_it_is_written_beside_the_run(folder, tmp_path, monkeypatch):
    copied = tmp_path / "shop"
    shutil.copytree(folder, copied)
    monkeypatch.chdir(tmp_path)
    following = compare.main(
        compare.Options(copied, configs=copied / "fixed.toml", protocol="new-products", folds=2, seeds=1)
    )
    [run_folder] = (tmp_path / "runs").iterdir()
    assert (run_folder / "comparison" / "new-products" / "comparison.json").is_file()
    assert following is None


def test_places_by_hand():
    found = of_ranks((np.array([0, 3, 10]), np.array([1, 1, 1])))
    assert found["mrr"][0] == pytest.approx([1, 1 / 4, 1 / 11])
    assert found["ndcg@10"][0] == pytest.approx([1, 1 / np.log2(5), 0])
    assert found["hit@10"][0] == pytest.approx([1, 1, 0])


def test_peers_need_the_package_that_asks_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="peers: found lightfm; allowed: with recsys_jax_benchmark"):
        run(folder, tmp_path, peers=("lightfm",))


def test_former_options_are_understood(capsys):
    assert parse(compare.main, "compare", ["shop", "--search", "3"]).tune == 3
    assert parse(compare.main, "compare", ["shop", "--search=4"]).tune == 4
    assert "--search is now called --tune" in capsys.readouterr().err
    assert parse(main_job.main, "run", ["--recipe", "towers"]).recipe == "deep"
    assert parse(main_job.main, "run", ["--recipe=linear"]).recipe == "wide"
    assert "--recipe=towers is now called --recipe=deep" in capsys.readouterr().err


@pytest.mark.wild
def test_a_comparison_is_written_before_it_is_told(folder, tmp_path, monkeypatch):
    """Where the disk that takes what is printed is full."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recsys_jax.console.terminal.console.print", full)
    with pytest.raises(OSError, match="No space left"):
        run(folder, tmp_path, protocol="hold-out", configs=folder / "fixed.toml")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"comparison.csv", "comparison.json", "comparison.png", "report.md", "run.json", "run.toml"}


@pytest.mark.wild
@pytest.mark.parametrize("name", ["popularity", "inverse popularity", "random"])
def test_no_recipe_has_the_name_of_a_baseline(folder, tmp_path, name):
    """Of new products popularity is no baseline, but whoever reads its name takes it for one."""
    (tmp_path / "named.toml").write_text(FIXED.replace("fixed", name), encoding="utf-8")
    with pytest.raises(InputError, match=f"configs: found a recipe named '{name}'"):
        run(folder, tmp_path / "out", protocol="new-products", configs=tmp_path / "named.toml")
