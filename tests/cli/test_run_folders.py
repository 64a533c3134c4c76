"""Commands and the run folder that they write into: changes, kills, other processes and the files of others."""

import json
import shlex
import shutil
import signal
from contextlib import ExitStack, chdir
from pathlib import Path
from threading import Lock

import pytest
from command_line import done, run, told
from conftest import write_mall

from recsys_jax import InputError, load_dataset, load_model, save_model, stopping
from recsys_jax.cli import evaluate
from recsys_jax.cli import personas as cluster
from recsys_jax.cli import run as main_job
from recsys_jax.console import places, reports
from recsys_jax.storage import runs
from recsys_jax.storage.checkpoints import NEWEST, Checkpoints
from recsys_jax.storage.jobs import only_process

pytestmark = pytest.mark.wild
MALL = Path(__file__).parents[2] / "data" / "amoremall"
QUICK = ("deep", "--epochs", 2, "--batch-size", 4)
EVALUATED = ("evaluate", "mall", "--protocol", "hold-out")


class Killed(BaseException):
    """A kill: nothing in the program catches it."""


def killed(*_, **__):
    raise Killed


# Customers, and the personas and reviews that they were made with


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("clustered")
    shutil.copytree(MALL, cwd / "mall")
    done("personas", "mall", "--encoder", "lsa", "--run", "run", cwd=cwd)
    return cwd


@pytest.fixture
def made(clustered, tmp_path):
    """The mall and its customers, to be changed at will."""
    shutil.copytree(clustered, tmp_path, dirs_exist_ok=True)
    with chdir(tmp_path):
        yield Path("mall"), Path("run")


def edited(path: Path, change) -> None:
    rows = json.loads(path.read_text("utf-8"))
    change(rows)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")


def review(rows):
    next(row for row in rows if row["reviews"])["reviews"][0]["content"] += " And it smells of roses."


@pytest.mark.parametrize(
    ("name", "change", "other"),
    [
        ("run/customers.json", lambda rows: rows[0].update(age=99), "customers"),
        ("run/personas/model.json", lambda model: model["personas"].reverse(), "personas"),
        ("mall/products.json", review, "reviews"),
        ("mall/products.json", lambda rows: next(row for row in rows if row["reviews"])["reviews"].pop(), "reviews"),
    ],
)
def test_what_customers_were_made_with_has_changed(made, name, change, other):
    dataset, folder = made
    assert places.load(dataset, folder)[1] == folder / "customers.json"
    edited(Path(name), change)
    with pytest.raises(InputError, match=f"customers.json: found other {other} than when personas were made; allowed"):
        places.load(dataset, folder)
    for command in ("train", "evaluate"):
        told(run(command, "mall", "--run", "run"), f"found other {other} than when personas were made")
    with pytest.raises(InputError, match="recsys-jax personas makes them anew"):
        places.load(dataset, None, folder / "customers.json")


def test_a_catalogue_that_changed_counts_and_a_price_does_not(made):
    dataset, folder = made
    edited(dataset / "products.json", lambda rows: rows[0].update(price=rows[0]["price"] + 1))
    places.load(dataset, folder)
    with (dataset / "personas.toml").open("a") as stream:
        stream.write("# another\n")
    with pytest.raises(InputError, match="found other catalogue than"):
        places.load(dataset, folder)
    (folder / "customers.json").rename("mine.json")  # one's own, from here on
    places.load(dataset, folder, Path("mine.json"))


def test_a_run_of_former_versions_is_used_as_it_is(made):
    dataset, folder = made
    (folder / "run.json").unlink()
    edited(folder / "customers.json", lambda rows: rows[0].update(age=99))
    assert places.run_folder(dataset, folder) == folder
    assert places.load(dataset, folder)[1] == folder / "customers.json"
    places.load(dataset, folder)  # and again, now that there is a manifest


@pytest.mark.parametrize("step", ["save_personas", "persona_definition", "persona_distribution"])
def test_personas_that_were_killed_leave_no_customers(made, monkeypatch, step):
    dataset, folder = made
    monkeypatch.setattr(cluster, step, killed)
    (folder / "silhouette.png").write_bytes(b"of an earlier choice")
    with pytest.raises(Killed):
        cluster.main(cluster.Options(dataset, folder, encoder="lsa", k=3))
    assert not (folder / "silhouette.png").exists()
    told(run("train", "mall", "--run", "run"), "Run recsys-jax personas")


def test_personas_that_were_killed_at_the_end_are_not_believed(made, monkeypatch):
    dataset, folder = made
    monkeypatch.setattr(runs, "made_of", killed)
    with pytest.raises(Killed):
        cluster.main(cluster.Options(dataset, folder, encoder="lsa", k=3))
    monkeypatch.undo()
    with pytest.raises(InputError, match="found other customers and personas than"):
        places.load(dataset, folder)


# A model and what was written of it


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a model and an evaluation, and a customer who is set aside."""
    cwd = tmp_path_factory.mktemp("trained")
    edited(write_mall(cwd / "mall") / "customers.json", lambda rows: rows[3].update(age=-3))
    done("train", "mall", *QUICK, cwd=cwd)
    (cwd / "runs" / "mall" / "set_aside.csv").unlink()
    done(*EVALUATED, cwd=cwd)
    return cwd


@pytest.fixture
def shop(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with chdir(tmp_path):
        yield Path("runs/mall")


def old(folder: Path) -> set[str]:
    """What is there of a model and its evaluation."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if "/" in name or name in ("loss.csv", "embedding_space.png")}


WHOLE = {f"hold-out/{name}" for name in runs.EVALUATION} | {"loss.csv", "embedding_space.png"}


def test_evaluate_writes_what_is_set_aside(shop):
    header, row = (shop / "set_aside.csv").read_text("utf-8").splitlines()
    assert header == "file,row,id,reason"
    assert row.startswith("mall/customers.json,4,u4,age: found -3")


def test_an_old_evaluation_goes_with_the_old_model_and_before_the_new_one_comes(shop, monkeypatch):
    assert old(shop) == WHOLE
    before = (shop / "model.json").read_bytes()
    monkeypatch.setattr(places, "save_model", killed)
    with pytest.raises(Killed):
        run("train", "mall", *QUICK, "--seed", 1)
    assert old(shop) == set()
    assert (shop / "model.json").read_bytes() == before
    monkeypatch.undo()
    for _ in range(2):  # of a model alone, with its losses, there was no evaluation
        assert "Removed the evaluation" not in done("train", "mall", *QUICK, "--seed", 1).stdout
    assert old(shop) == {"loss.csv"}
    done(*EVALUATED)
    assert "Removed the evaluation of the model that was here before" in done("train", "mall", *QUICK).stdout


def test_a_training_that_gives_the_same_model_leaves_its_evaluation(shop):
    assert old(shop) == WHOLE
    assert "Removed" not in done("train", "mall", *QUICK).stdout
    assert old(shop) == WHOLE


@pytest.mark.parametrize("command", [EVALUATED, ("train", "mall", *QUICK, "--seed", 1)])
@pytest.mark.parametrize("name", ["results_by_persona.png", "results_by_segment_names.csv"])
def test_what_only_some_evaluations_have_goes_with_the_one_that_it_is_of(shop, command, name):
    (shop / "hold-out" / name).write_bytes(b"of a former version, or where a font was missing")
    done(*command)
    assert not (shop / "hold-out" / name).exists()


def test_names_that_were_not_drawn_go_with_their_picture(shop):
    (shop / "embedding_space_names.csv").write_bytes(b"drawn as,name")
    done("train", "mall", *QUICK, "--seed", 1)
    assert not (shop / "embedding_space_names.csv").exists()


def test_the_space_is_drawn_again_where_it_is_another(shop, monkeypatch):
    drawn = []

    def picture(path, *_, **asked):
        path.write_bytes(b"")
        drawn.append((asked["seed"], asked["colour"]))
        return drawn[-1] != (1, "age")  # where a font is missing

    monkeypatch.setattr(reports, "embedding_space", picture)
    model, dataset = load_model(shop), load_dataset("mall")
    asked = [(0, None), (1, None), (1, None), (1, "age"), (1, "age"), (1, "skin_type"), (1, "skin_type")]
    assert [reports.draw(shop, model, dataset, *one) for one in asked] == [False, True, False, True, True, True, False]
    assert drawn == [(1, None), (1, "age"), (1, "age"), (1, "skin_type")]
    (shop / "embedding_space.png").unlink()
    assert reports.draw(shop, model, dataset, 1, "skin_type")
    edited(Path("mall/customers.json"), lambda rows: rows[0].update(persona_name="Other"))
    changed = load_dataset("mall")
    assert not reports.draw(shop, model, changed, 1, "skin_type")
    assert reports.draw(shop, model, changed, 1)


def test_a_named_run_without_a_model_is_told_before_the_work(shop, monkeypatch, capsys):
    monkeypatch.setattr(places, "load", killed)
    with pytest.raises(Killed):
        evaluate.main(evaluate.Options(Path("mall"), Path("new")))
    assert capsys.readouterr().out == "new has no model: the dataset's recipe is measured\n"


def test_the_colour_of_the_space(shop):
    before = (shop / "embedding_space.png").read_bytes()
    assert "above, report.html, embedding_space.png" in done(*EVALUATED, "--colour", "skin_type").stdout
    assert (shop / "embedding_space.png").read_bytes() != before
    missing = "mall/customers.json: the column 'mood' is missing; found: "
    for command in (EVALUATED, ("run", "mall")):
        told(run(*command, "--colour", "mood"), missing)
    allowed = "colour: found 'age'; allowed: with a model: train one first"
    told(run(*EVALUATED, "--run", "new", "--colour", "age"), allowed)


def test_a_model_from_elsewhere_takes_the_old_evaluation_away(shop, mall_model):
    save_model(mall_model, shop)
    assert "Removed from runs/mall what was written of another model" in done(*EVALUATED).stdout
    assert old(shop) == WHOLE - {"loss.csv"}


def test_an_evaluation_that_was_killed_is_no_mixture(shop, monkeypatch):
    monkeypatch.setattr(reports, "write_page", killed)
    with pytest.raises(Killed):
        run(*EVALUATED, "--seed", 1)
    assert not (shop / "hold-out" / "report.md").exists()
    assert not (shop / "hold-out" / "results_by_segment.png").exists()


def test_a_model_that_was_replaced_while_it_was_measured(shop, mall_model, monkeypatch):
    real = evaluate.report
    monkeypatch.setattr(evaluate, "report", lambda *a, **k: save_model(mall_model, shop) and real(*a, **k))
    told(run(*EVALUATED), "runs/mall: found another model than the one that was measured; evaluate it again")


def test_figures_of_other_data_are_named(shop):
    edited(Path("mall/customers.json"), lambda rows: rows[0].update(age=77))
    said = done("evaluate", "mall", "--protocol", "new-products").stdout
    assert "note: runs/mall/hold-out is of other data than these" in said
    assert "new-products is of other data" not in said


def test_a_model_of_former_versions_is_measured_and_replaced(shop):
    for path in shop.iterdir():
        if path.name.startswith("model") or path.name == "run.json":
            path.unlink()
    shutil.copytree(Path(__file__).parents[1] / "storage" / "former" / "format-3-deep", shop, dirs_exist_ok=True)
    places.run_folder(Path("mall"), shop)
    assert old(shop) == WHOLE
    done("train", "mall", *QUICK)
    assert old(shop) == {"loss.csv"}
    assert not (shop / "model.safetensors").exists()


# Two processes


@pytest.mark.parametrize("words", [("train", "mall", *QUICK), ("train", "mall", *QUICK, "--resume")])
def test_training_where_another_process_trains_is_refused(shop, words):
    (shop / NEWEST).write_bytes(b"of the other process")
    with only_process(shop, "busy"):
        told(run(*words), "runs/mall: found another process that is writing this run; allowed: one at a time")
    assert (shop / NEWEST).read_bytes() == b"of the other process"
    done(*words)


def test_clustering_where_another_process_works_is_refused(made):
    with only_process(Path("run"), "busy"):
        told(run("personas", "mall", "--encoder", "lsa", "--run", "run"), "found another process")
    assert places.load(*made)


def test_seeds_are_resumed(shop, monkeypatch, capfd):
    """By the command that is told, the first one goes on, to the bytes and the figures of an uninterrupted training."""
    words = ("train", "mall", "--checkpoint-every", 50, "deep", "--epochs", 30, "--batch-size", 4, "--seeds", 2)
    done(*words)
    whole = [(shop / name).read_bytes() for name in ("model.json", "seeds.json")]
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "_asked", [])
        patch.setattr(Checkpoints, "due", lambda self, *epochs: not stopping._asked.append(signal.SIGTERM))
        patch.setattr(stopping, "_ending", Lock())  # which `end` keeps for good
        assert run(*words, "--run", "runs/again").returncode == 128 + signal.SIGTERM
    command = shlex.split(capfd.readouterr().err.partition("; this goes on: ")[2])
    assert "--checkpoint-every" in command
    said = done(*command[command.index("train") :]).stdout
    assert "Goes on after epoch " in said
    assert [(Path("runs/again") / name).read_bytes() for name in ("model.json", "seeds.json")] == whole


# Whose the folder is


def test_two_datasets_of_one_name_do_not_share_a_run(shop):
    write_mall(Path("elsewhere/mall"))
    before = (shop / "model.json").read_bytes()
    for command in (("train", "elsewhere/mall", *QUICK), ("evaluate", "elsewhere/mall"), ("compare", "elsewhere/mall")):
        told(run(*command), "runs/mall: found what was made from ")
    assert (shop / "model.json").read_bytes() == before
    done("train", "elsewhere/mall", *QUICK, "--run", "runs/other")
    done("train", "elsewhere/mall", *QUICK, "--force")
    assert runs.read_manifest(shop)["source"] == "../../elsewhere/mall"


def test_two_product_files_of_one_name_do_not_share_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = Path("a/products.json"), Path("b/products.json")
    for path in (first, second):
        path.parent.mkdir()
        shutil.copy(MALL / "products.json", path)
    second.write_text(second.read_text("utf-8") + " ", "utf-8")
    folder = main_job.folder_of(main_job.Options(first), ExitStack())
    copied = folder / "products.json"
    assert main_job.folder_of(main_job.Options(first), ExitStack()) == folder
    told(run("run", second), f"runs/products-dataset: found what was made from {first.resolve()}; allowed for {second}")
    assert copied.read_bytes() == first.read_bytes()
    other = main_job.folder_of(main_job.Options(second, run=Path("runs/b")), ExitStack())
    assert (other, (other / "products.json").read_bytes()) == (Path("runs/b-dataset"), second.read_bytes())
    main_job.folder_of(main_job.Options(second, force=True), ExitStack())
    assert copied.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "words",
    [("train", *QUICK), ("evaluate",), ("run",), ("torch", "import", "model.pth"), ("compare",)],
    ids=lambda words: words[0],
)
def test_a_folder_of_others_is_left_alone(mall, tmp_path, words):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "model.safetensors").write_text("mine")
    option = "--out" if words == ("compare",) else "--run"
    told(run(*words, mall, option, theirs, cwd=tmp_path), "theirs: found files that this program did not write")
    assert [path.read_text() for path in theirs.iterdir()] == ["mine"]


def test_the_dataset_is_no_run_and_its_files_are_never_replaced(mall, tmp_path):
    told(run("train", mall, *QUICK, "--run", mall), "mall: found files that this program did not write, such as")
    (mall / "products.json").rename(mall / "model.json")
    toml = mall / "dataset.toml"
    toml.write_text(
        toml.read_text().replace("products.json", "model.json") + '[personas]\ncatalogue = "personas.toml"\n'
    )
    shutil.copy(MALL / "personas.toml", mall)
    before = {path.name: path.read_bytes() for path in mall.iterdir()}
    said = "found a file of the dataset that would be replaced; allowed: another --run"
    told(run("train", mall, *QUICK, "--run", mall, "--force"), f"model.json: {said}")
    told(run("personas", mall, "--encoder", "lsa", "--run", mall, "--force"), f"customers.json: {said}")
    assert {path.name: path.read_bytes() for path in mall.iterdir()} == before
    with pytest.raises(InputError, match="found a file that is no model"):
        save_model(load_model(Path(__file__).parents[1] / "storage" / "former" / "format-4-deep"), mall)
    load_dataset(mall)
