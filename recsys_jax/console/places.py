"""What a command works on: the dataset, its recipe, the run and its customers; and how the next one finds them."""

import re
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_jax.config import RECIPES, Config, WideConfig
from recsys_jax.console.terminal import answer, console, progress, remark
from recsys_jax.data.dataset import Dataset, load_dataset, read_schema
from recsys_jax.data.files import require_folder, sheet_text, write_file
from recsys_jax.data.splits import SPLITS, DatasetOfFold, Split
from recsys_jax.data.tables import SetAside
from recsys_jax.data.tabular.readers import ENDINGS
from recsys_jax.errors import InputError, did_you_mean, nearest, require
from recsys_jax.personas.catalogue import Catalogue, read_catalogue
from recsys_jax.personas.customers import profiles_alone, read_reviews
from recsys_jax.storage import runs
from recsys_jax.storage.artifacts import MODEL, holds, save_model
from recsys_jax.storage.jobs import only_process

if TYPE_CHECKING:
    from recsys_jax.models.trained import TrainedModel

_PLAIN = re.compile(r"[\w@%+=:,./-]+")  # shlex quotes letters other than ASCII, too, which no shell needs
MANY = 1000  # products that nobody bought are worth a note from so many on
MALL = Path("data") / "amoremall"  # the dataset of a command that names none, where it is there


def make_mall(folder: Path, seed: int = 0) -> list[Path]:
    """Writes the small synthetic mall and, where there are none, its personas and boost rules; returns the paths."""
    from recsys_jax.synthetic.malls import mall, write_mall

    paths = write_mall(mall(seed), folder)
    for path in (folder / "personas.toml", folder / "boosts.toml"):
        if not path.exists():
            write_file(path, files("recsys_jax.data").joinpath(path.name).read_bytes())
            paths.append(path)
    return paths


def require_dataset(dataset: Path) -> None:
    """Raises `InputError` where nobody named a dataset and the mall is not here."""
    if dataset == MALL and not MALL.exists():
        raise InputError(
            f"dataset: found none, and no {MALL} here; allowed: a folder with dataset.toml; "
            f"recsys-jax dataset synthetic writes {MALL}"
        )
    if runs.is_run(dataset) and not (dataset / "dataset.toml").exists():
        made = runs.made_from(dataset)
        near = f"; did you mean {made}, of which it was made?" if made else ""
        raise InputError(f"dataset: found {dataset}, a run; allowed: a folder with dataset.toml{near}")
    tables = dataset.is_dir() and any(path.suffix.lower() in ENDINGS for path in dataset.iterdir())
    if tables and not (dataset / "dataset.toml").exists():
        raise InputError(f"{dataset}: found tables and no dataset.toml; recsys-jax init {dataset} writes one")
    word = str(dataset)
    if not dataset.exists() and nearest(word, RECIPES):
        allowed = f"a folder with dataset.toml, or a recipe{did_you_mean(word, RECIPES)}"
        raise InputError(f"dataset: found {word!r}; allowed: {allowed}")


def standard(dataset: Path) -> Config:
    """The dataset's own recipe. Raises `InputError` where there is no such dataset."""
    require_dataset(dataset)
    return read_schema(dataset).training or WideConfig()


def seeds_from(config: Config, count: int, ensemble: bool) -> range:
    """The config's seed and those after it. Raises `InputError` where there is none, or nothing to average."""
    require(count >= 1, "seeds", count, "1 or more")
    if ensemble and count == 1:
        raise InputError("ensemble: found one seed; allowed: with 2 seeds or more, as in --seeds 8")
    only = f"one with the recipe {config.recipe}, which has one best fit"
    require(count == 1 or config.seeded, "seeds", count, only)
    seeds = range(config.seed, config.seed + count)
    replace(config, seed=seeds[-1])  # refuses one that is too great
    return seeds


WRITTEN = MODEL, runs.MANIFEST, "loss.csv", "set_aside.csv"


def run_folder(dataset: Path, run: Path | None, *, force: bool = False, written: Sequence[str] = WRITTEN) -> Path:
    """The folder of a run: the one asked for, or runs/NAME with the dataset's name, for a command that writes into it.

    What another model left there goes away. Raises `InputError` where the folder has files of others or another
    dataset's run, and no `force`; where a file of the dataset would be replaced by what is `written`; and where nothing
    can be written: it is told now, not after all the work.
    """
    schema, run = read_schema(dataset), run or _standard_run(dataset)
    require_folder(run)
    try:
        runs.require_own(run, dataset, force=force)
    except InputError:  # a fault of the dataset's own is told first
        read_reviews(dataset, schema) if schema.customers.file is None else load_dataset(dataset)
        raise
    tables = (schema.products.file, schema.customers.file, schema.interactions and schema.interactions.file)
    runs.require_unread(run, written, [dataset / name for name in tables if name])
    if runs.settle(run):
        console.print(f"Removed from {run} what was written of another model than the one there")
    return run


def alone(run: Path) -> AbstractContextManager[None]:
    """Keeps the run for this process. Raises `InputError` where another one trains or makes customers there."""
    return only_process(run, f"{run}: found another process that is writing this run; allowed: one at a time")


def trained_runs() -> tuple[list[Path], str]:
    """The folders under runs/ that hold a model, and a sentence's list of them."""
    found = sorted(path.parent for path in Path("runs").glob("*/model.json"))
    return found, ", ".join(map(str, found)) or "none"


def _standard_run(dataset: Path) -> Path:
    return Path("runs") / read_schema(dataset).name


def following(command: str, *words: object) -> str:
    """A command to run next, in a shell's words: what `main` returns.

    >>> following("train", Path("my mall"), "--seeds", 2)
    "train 'my mall' --seeds 2"
    >>> following("run", "펫샵", "")
    "run 펫샵 ''"
    """
    said = [*command.split(), *map(str, words)]
    return " ".join(word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in said)


def again(dataset: Path, run: Path, customers: Path | None = None) -> list[object]:
    """The words by which the next command finds the same dataset, run and customers."""
    words: list[object] = [dataset]
    words += ["--run", run] if run != _standard_run(dataset) else []
    words += ["--customers", customers] if customers is not None else []
    return words


def made_customers(dataset: Path, run: Path | None = None, customers: Path | None = None) -> Path | None:
    """The customers that `personas` made of this dataset's reviews, for this run or for the default one.

    Where other `customers` are asked for, it is these, if `personas` made them.
    """
    if read_schema(dataset).customers.file is not None:
        return None
    if customers is not None:
        made = customers.name == "customers.json" and (customers.parent / "personas" / "model.json").exists()
        return customers if made else None
    standard = _standard_run(dataset)
    found = (folder / "customers.json" for folder in (run or standard, standard))
    return next((path for path in found if path.exists()), None)


def load(dataset: Path, run: Path | None, customers: Path | None = None) -> tuple[Dataset, Path | None]:
    """The dataset with the customers asked for, its own, or those made of reviews, and where these lie.

    From then on the run is the dataset's. Raises `InputError` where what customers were made of has changed since.
    """
    made = made_customers(dataset, run, customers)
    known = {} if made is None else runs.read_manifest(made.parent)
    if made is not None and "customers" in known:
        schema = read_schema(dataset)
        reviews, catalogue = read_reviews(dataset, schema).fingerprint, dataset / (schema.catalogue or "")
        found = runs.made_of(made.parent, reviews, catalogue)
        if differing := [name for name, value in found.items() if known.get(name) != value]:
            raise InputError(
                f"{made}: found other {' and '.join(differing)} than when personas were made; allowed: the same; "
                f"recsys-jax personas makes them anew"
            )
    with progress(f"reading {dataset}"):
        opened = load_dataset(dataset, customers or made)
    if run is not None:
        runs.claim(run, dataset)
    counts = len(opened.product_ids), len(opened.customer_ids), len(opened.purchases)
    answer["data"] = dict(zip(("products", "customers", "purchases"), counts, strict=True))
    return opened, made


def open_dataset(dataset: Path, run: Path | None, customers: Path | None) -> Dataset:
    """The dataset as `load` gives it; says what was corrected."""
    opened, _ = load(dataset, run, customers)
    console.print(
        f"{opened.schema.name}: {len(opened.product_ids):,} products, {len(opened.customer_ids):,} customers, "
        f"{len(opened.purchases):,} purchases"
    )
    for note in opened.notes:
        remark(note)
    unsold = len(opened.product_ids) - len(set(opened.purchases[:, 1].tolist()))
    if unsold > MANY and 2 * unsold > len(opened.product_ids):
        remark(
            f"nobody bought {unsold:,} of the products, which take most of the time; what is sold no more may be "
            f"left out of {opened.products.source}"
        )
    return opened


def held_out(
    folder: Path, dataset: Dataset, made: Path | None, protocol: str, folds: int, seed: int, encoder: str | None
) -> tuple[Split, DatasetOfFold | None]:
    """The split of a protocol and, where the customers were `made` of reviews, what makes them anew in each fold.

    An `encoder` that does not come with recsys_jax has to be named.
    """
    if made is not None and protocol == "new-combinations":
        raise InputError(
            f"protocol: found new-combinations; allowed for customers made of reviews ({made}): cross-validation, "
            f"hold-out, new-products; each fold makes personas anew, so no combination stays the same"
        )
    split = SPLITS[protocol](dataset, folds, seed)
    if made is None:
        return split, None
    from recsys_jax.personas.clustering import load_personas
    from recsys_jax.personas.folds import personas_of_fold

    return split, personas_of_fold(folder, dataset, load_personas(made.parent / "personas", encoder=encoder))


def derived(folder: Path, dataset: Dataset, made: Path | None) -> bool | None:
    """Whether attributes of customers that were `made` of reviews come from those of the purchases asked for.

    False where profiles alone say them; None where customers are the dataset's own.
    """
    if made is None:
        return None
    schema = dataset.schema
    catalogue = Catalogue() if schema.catalogue is None else read_catalogue(folder / schema.catalogue)
    columns = [one.column for one in schema.customers.features]
    return not profiles_alone(read_reviews(folder, schema), catalogue, columns)


def write_set_aside(rows: Sequence[SetAside], run: Path, name: str = "set_aside.csv", *, quiet: bool = False) -> None:
    """Writes which rows are not used and why, and says so; an older list goes away where all are used."""
    path = run / name
    if not rows:
        path.unlink(missing_ok=True)
        return
    lines = [("file", "row", "id", "reason"), *((one.source, one.row, one.id, one.reason) for one in rows)]
    write_file(path, sheet_text(lines).encode("utf-8", "backslashreplace"))
    if not quiet:
        console.print(f"{len(rows):,} {'row is' if len(rows) == 1 else 'rows are'} not used; why stands in {path}")


def write_model(model: "TrainedModel", run: Path, dataset: Path) -> None:
    """Writes the model and its losses into the run folder; first, what was said of another one that was there goes."""
    if not holds(run, model) and {path.name for path in runs.forget(run)} - {"loss.csv"}:
        console.print("Removed the evaluation of the model that was here before")
    written = [path.name for path in save_model(model, run)]
    if len(model.losses):
        lines = [f"{number},{loss:.6f}" for number, loss in enumerate(model.losses, 1)]
        header = "epoch,loss" if model.config.seeded else "step,loss"
        write_file(run / "loss.csv", "\n".join([header, *lines]) + "\n")
        written.append("loss.csv")
    runs.claim(run, dataset, {"model": runs.model_of(run)})
    console.print(f"Written to {run}: {', '.join(written)}")
