"""With --json, the standard output is one document, whatever the command; and run.toml repeats what was run."""

import json

import pytest
from command_line import done, run, told
from conftest import write_mall

pytestmark = pytest.mark.wild

QUICK = ("deep", "--epochs", 2)


def document(*words, cwd):
    return json.loads(done(*words, "--json", cwd=cwd).stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with the mall, and what a training of it said and wrote."""
    cwd = tmp_path_factory.mktemp("json")
    write_mall(cwd / "mall")
    return cwd, document("train", "mall", *QUICK, cwd=cwd)


def test_a_training(shop):
    cwd, said = shop
    assert said["command"] == "train"
    assert said["data"] == {"products": 8, "customers": 10, "purchases": 10}
    assert said["training"]["recipe"]["epochs"] == len(said["training"]["losses"]) == 2
    assert {"runs/mall/model.json", "runs/mall/run.toml", "runs/mall/loss.csv"} <= set(said["written"])
    assert all((cwd / path).is_file() for path in said["written"])
    assert said["next"].endswith("evaluate mall")


def test_an_evaluation_has_what_is_written(shop):
    cwd, _ = shop
    said = document("evaluate", "mall", "--protocol", "in-sample", cwd=cwd)
    written = json.loads((cwd / "runs" / "mall" / "in-sample" / "metrics.json").read_text("utf-8"))
    assert said["in-sample"] == {"finding": said["in-sample"]["finding"], **written}
    assert "MRR" in said["in-sample"]["finding"]


def test_a_comparison_and_its_notes(shop):
    cwd, _ = shop
    (cwd / "few.toml").write_text('[few]\nrecipe = "wide"\nitem_factors = 1\n', "utf-8")
    said = document("compare", "mall", "--configs", "few.toml", "--folds", 2, "--seeds", 1, cwd=cwd)
    assert "few" in said["comparison"]["recipes"]
    assert (cwd / "runs/mall/comparison/cross-validation/run.toml").is_file()


def test_files_that_are_made(shop):
    cwd, _ = shop
    said = document("torch", "export", "runs/mall", "model.pth", cwd=cwd)
    assert said["command"] == "torch export"
    assert said["written"] == ["model.pth"]
    made = document("dataset", "synthetic", "--out", "made", cwd=cwd)
    assert "made/products.json" in made["written"]
    assert made["next"].endswith("run made")


def test_customers_that_are_scored(shop):
    cwd, _ = shop
    rows = ["user_id,age,gender,skin_type,skin_concern", "a,30,F,dry,moisture", "b,30,F,dry,x"]
    (cwd / "c.csv").write_text("\n".join(rows), "utf-8")
    said = document("score", "c.csv", "o.csv", "--run", "runs/mall", cwd=cwd)
    assert said["counts"]["rows"] == 2
    assert said["counts"]["rejected"] == 1
    assert set(said["written"]) == {"o.csv", "o.rejected.csv"}


def test_what_takes_the_place_of_a_file_is_told(shop):
    cwd, _ = shop
    known = ("age=30", "gender=F", "skin_type=dry", "skin_concern=moisture")
    for there in (False, True):
        said = done("recommend", "runs/mall", *known, "--csv", "list.csv", cwd=cwd).stdout
        assert "Written: list.csv\n" in said
        assert ("In place of what was there: list.csv\n" in said) == there
    exported = ("torch", "export", "runs/mall", "again.pth")
    assert [document(*exported, cwd=cwd)["replaced"] for _ in range(2)] == [[], ["again.pth"]]
    # What each command notes anew in a run is no loss; a model that another one replaces is told.
    train = ("train", "mall", "--run", "runs/other", *QUICK)
    assert "In place of" not in done(*train, cwd=cwd).stdout
    assert "In place of what was there: runs/other/model.json" in done(*train, "--seed", 5, cwd=cwd).stdout


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "absent"),
        ("compare", "mall", "--folds", 99),
        ("runs", "absent"),
        ("init", "absent.csv"),
        ("dataset", "movielens", "absent", "out"),
        ("torch", "import", "absent.pth", "mall"),
        ("recommend", "runs/mall", "age=300"),
        ("train", "mall", "--epohcs", 3),
    ],
)
def test_a_mistake_is_a_sentence_and_no_document(shop, words):
    cwd, _ = shop
    result = run(*words, "--json", cwd=cwd)
    told(result, "error: ")
    assert (result.stdout, "()" in result.stderr) == ("", False)
    assert done("runs", cwd=cwd).stdout  # and the next command prints again


def test_lists_and_guesses(shop):
    """The document of `runs` is its list; that of `init` names what it wrote."""
    cwd, _ = shop
    assert [one["run"] for one in document("runs", cwd=cwd)] == sorted(one["run"] for one in document("runs", cwd=cwd))
    (cwd / "p.csv").write_text("product_id,brand\np1,x\np2,x\np3,y\n", "utf-8")
    (cwd / "c.csv").write_text("user_id,gender\nu1,F\nu2,M\nu3,F\n", "utf-8")
    (cwd / "b.csv").write_text("user_id,product_id\nu1,p1\nu2,p2\nu3,p3\n", "utf-8")
    assert "guessed/dataset.toml" in document("init", "p.csv", "c.csv", "b.csv", "--out", "guessed", cwd=cwd)["written"]


def test_the_file_of_a_run_repeats_it(shop):
    """To the same bytes, into another folder; an evaluation likewise."""
    cwd, _ = shop
    before = (cwd / "runs" / "mall" / "model.json").read_bytes()
    done("train", "--config", "runs/mall/run.toml", "--run", "runs/again", cwd=cwd)
    assert (cwd / "runs" / "again" / "model.json").read_bytes() == before
    done("evaluate", "mall", "--protocol", "hold-out", "--folds", 3, "--k", 2, "--run", "runs/again", cwd=cwd)
    measured = cwd / "runs" / "again" / "hold-out" / "metrics.json"
    first = measured.read_bytes()
    measured.unlink()
    done("evaluate", "--config", "runs/again/run.toml", cwd=cwd)
    assert measured.read_bytes() == first
