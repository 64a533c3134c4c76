"""The main job, such as `recsys-jax run data/amoremall`, or of a product file, `recsys-jax run reviews.json`."""

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.text import Text

from recsys_jax import Dataset, InputError, Recommender, fit, load_model
from recsys_jax.cli import personas as cluster_personas
from recsys_jax.cli import train
from recsys_jax.config import FORMER_RECIPES, Config, Language, words
from recsys_jax.console.options import Common, last_language, remember
from recsys_jax.console.pictures.embedding import Colouring, Space
from recsys_jax.console.places import (
    MALL,
    again,
    derived,
    following,
    held_out,
    load,
    made_customers,
    make_mall,
    run_folder,
    standard,
)
from recsys_jax.console.recommendations import example
from recsys_jax.console.recommendations import show as show_recommended
from recsys_jax.console.reports import draw, write
from recsys_jax.console.tables import Grid, Page, plus_minus, say, show, write_page
from recsys_jax.console.terminal import console, note, note_at_end, program, progress, renamed
from recsys_jax.data.dataset import read_schema
from recsys_jax.data.files import absent, write_file
from recsys_jax.data.values import split_keys
from recsys_jax.evaluation.baselines import baselines, popularities
from recsys_jax.evaluation.engine import CONTROL, KS, MODEL, evaluate, in_sample
from recsys_jax.evaluation.findings import best_baseline, better_recipe
from recsys_jax.evaluation.methods import both, recipe, trained
from recsys_jax.evaluation.report import report
from recsys_jax.personas.customers import read_reviews
from recsys_jax.report.page import write as write_html
from recsys_jax.storage.runs import claim, model_of, require_own
from recsys_jax.storage.torch import published_schema

PRODUCT_FILES = (".json", ".jsonl", ".ndjson", ".parquet")  # the kinds of table that hold lists, such as of reviews
FORMER = {f"--recipe={old}": f"--recipe={new}" for old, new in FORMER_RECIPES.items()}


@dataclass(frozen=True)
class Options(Common):
    """The main job, end to end: personas, customers, training, evaluation, pictures, sample recommendations."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = MALL
    """The folder with dataset.toml; or a product file of the mall with its reviews (JSON, JSON Lines, Parquet)."""
    run: Path | None = None
    """The folder for everything this writes; by default runs/NAME with the dataset's name."""
    encoder: str = "use"
    """'use' (multilingual, offline), 'lsa' (no model), or a sentence-transformers name or folder."""
    k: int | Literal["auto"] | None = None
    """The number of personas, or auto: the best silhouette from 2 to 12; else that of the catalogue, or 6."""
    recipe: Literal["standard", "deep", "wide"] = "standard"
    """The recipe to train; standard: the dataset's own. The other one is measured beside it."""
    epochs: int | None = None
    """Passes over the purchases, where they are not to be the recipe's (deep)."""
    seed: int = 0
    """Everything random follows from it."""
    colour: str | None = None
    """The customers' attribute that colours embedding_space.png, such as skin_type; by default the persona."""
    language: Language | None = None
    """Of report.html: English or Korean; by default that of the run's last page, or English."""
    force: bool = False
    """Take over a run folder that has the files of others, or another dataset's run."""
    examples = (
        "data/amoremall",
        "shop --recipe deep --epochs 50",
        "reviews.json --language ko",
        "--config runs/shop/run.toml --seed 1 --run runs/shop-1",
    )

    @staticmethod
    def translate(arguments: Sequence[str]) -> list[str]:
        """The arguments with former names of recipes replaced, each told in a line.

        >>> Options.translate(["mall", "--recipe", "deep"])
        ['mall', '--recipe=deep']
        """
        out: list[str] = []
        for word in arguments:
            whole = f"{out.pop()}={word}" if out and out[-1] == "--recipe" else word
            out.append(renamed(whole, FORMER))
        return out


def main(options: Options) -> str:
    """Runs every stage; what each one says stands in its own command."""
    started = time.monotonic()
    if options.dataset.suffix.lower() in PRODUCT_FILES and not options.dataset.exists():
        raise InputError(absent(options.dataset))
    with ExitStack() as undo:  # the folder of a product file goes where its reviews make no personas
        dataset = (folder_of(options, undo) if options.dataset.is_file() else options.dataset).resolve()
        if Path.cwd() in dataset.parents:  # as a person would type it
            dataset = dataset.relative_to(Path.cwd())
        if dataset == MALL and not MALL.exists():
            console.print(f"There is no {MALL} here: the synthetic mall is written there")
            make_mall(MALL)
        if options.dataset == MALL and (others := other_datasets()):
            listed = ", ".join(map(str, others))
            then = f"{program()} {following('run', others[0])}"
            note(f"this runs the example; datasets found here: {listed}; to run one: {then}")
        default = standard(dataset)
        run = run_folder(dataset, options.run, force=options.force)
        language = options.language or last_language(run)
        if read_schema(dataset).customers.file is None:
            _stage("Personas and customers, from the reviews")
            asked = options.encoder, options.k, options.seed
            cluster_personas.main(cluster_personas.Options(dataset, run, *asked, force=options.force))
        undo.pop_all()
    opened, made = load(dataset, run)
    Colouring.of(opened, options.colour)  # an attribute that isn't there is told before the training
    recipes = both(default, len(opened.purchases), options.seed, options.epochs)
    own = recipes.pop(default.recipe if options.recipe == "standard" else options.recipe)
    [other] = recipes.values()
    _stage("Training")
    train.main(train.Options(dataset, own, run, force=options.force))
    _stage(f"Evaluation: {own.recipe} beside {other.recipe} and baselines")
    options = replace(options, dataset=dataset, run=run, language=language)
    page, worth = _evaluated(dataset, run, opened, made, own, other, options, language)
    show(page)
    _samples(run, opened)
    note_at_end()  # before the last sentences, which lead to the next command
    remember("run", options, run)
    say(
        f"Done in {time.monotonic() - started:.0f} s. Everything is in {run}: open report.html in a browser; all "
        f"tables are in report.md there and in in-sample/ and cross-validation/."
    )
    if worth:
        beside = run.with_name(f"{run.name}-{other.recipe}")
        found = made_customers(dataset, beside) == made
        then = following("train", *again(dataset, beside, None if found else made), *words(other))
        console.print(f"The other recipe beside this one: {program()} {then}")
    return example(run, opened)


def other_datasets() -> list[Path]:
    """The datasets with tables in this folder and in its data/, but for the mall."""
    found = []
    for path in sorted([*Path().glob("*/dataset.toml"), *Path("data").glob("*/dataset.toml")]):
        with suppress(InputError):  # what cannot be read is told when it is run
            if path.parent != MALL and (path.parent / read_schema(path.parent).products.file).exists():
                found.append(path.parent)
    return found


def folder_of(options: Options, undo: ExitStack) -> Path:
    """A dataset folder for a product file of the mall: its own copy, described as `data/amoremall` is.

    It lies beside the run; `undo` removes it where it is new. Raises `InputError`, before anything is written, for a
    file of another kind or without reviews, and where the folder is that of another file or has files of others.
    """
    products = options.dataset
    if products.suffix.lower() not in PRODUCT_FILES:
        raise InputError(
            f"{products}: found the ending {products.suffix!r}; allowed: {', '.join(PRODUCT_FILES)}, as products hold "
            f"their reviews; or a folder with a dataset.toml, which may describe any table"
        )
    schema = published_schema()
    read_reviews(products.parent, replace(schema, products=replace(schema.products, file=products.name)))
    # What a dataset's name may not have: dots before it, a separator or drive of Windows, what nobody sees.
    name = re.sub(r"^\.+|[\\:]", "_", "".join(one if one.isprintable() else "_" for one in products.stem))
    run, packaged = options.run or Path("runs") / name, files("recsys_jax.data")
    folder = run.with_name(f"{run.name}-dataset")
    require_own(folder, products, force=options.force)
    if not folder.exists():
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
    claim(folder, products)
    copy = f"products{products.suffix.lower()}"
    described = packaged.joinpath("amoremall.toml").read_text("utf-8").replace("products.json", copy)
    described = re.sub("^description = .*\n", "", described, flags=re.MULTILINE)  # the mall's, which is invented
    named = described.replace('name = "amoremall"', f"name = {json.dumps(name, ensure_ascii=False)}")
    write_file(folder / "dataset.toml", named)
    write_file(folder / "personas.toml", packaged.joinpath("personas.toml").read_bytes())
    write_file(folder / copy, products.read_bytes())
    return folder


def _evaluated(
    folder: Path,
    run: Path,
    dataset: Dataset,
    made: Path | None,
    own: Config,
    other: Config,
    options: Options,
    language: Language,
) -> tuple[Page, bool]:
    """Measures both recipes in-sample and held out, and writes all of it.

    Returns the finding and one table, and whether the other recipe is better than every simple method.
    """
    whose, model = model_of(run), load_model(run, tell=note)
    with progress(f"training {other.recipe} on everything"):
        beside = {other.recipe: trained([fit(dataset, other)])}
    memory = report(in_sample(model, dataset, KS, others={**beside, **popularities(dataset)}), seed=own.seed)
    methods = {MODEL: recipe(own), other.recipe: recipe(other), **baselines(dataset)}
    folds = max(2, min(5, len(dataset.customer_ids)))
    split, of_fold = held_out(folder, dataset, made, "cross-validation", folds, own.seed, options.encoder)
    with progress(split.name) as bar:
        answers = evaluate(dataset, split, methods, dataset_of_fold=of_fold, seed=own.seed, progress=bar)
    held = report(answers, seed=own.seed)
    of_reviews = derived(folder, dataset, made)
    for found, name in ((memory, "in-sample"), (held, "cross-validation")):
        write(found, dataset, run, name, KS[0], model=whose, derived=of_reviews)
    space = Space.of(model, dataset, seed=own.seed)
    draw(run, model, dataset, own.seed, options.colour, space)
    write_html(
        run,
        held,
        dataset,
        model,
        space,
        headline=better_recipe(held, own.recipe, other.recipe, language),
        folder=folder,
        made=made,
        derived=of_reviews,
        encoder=options.encoder,
        colour=options.colour,
        called={MODEL: own.recipe},
        memory=memory,
        language=language,
    )
    columns, explained = {"held out": held, "in-sample": memory}, ""
    if held.leak_free is not None:
        columns = {"held out,\nwithout leak": held.leak_free, "held out,\nwith leak": held, "in-sample": memory}
        explained = (
            " With leak, a customer's persona comes from the review of the very purchase asked for; without, from a "
            "training customer's."
        )
    names = {MODEL: own.recipe, "random": "chance", "popularity": "popularity (bestsellers)"}
    names[CONTROL] = f"{own.recipe}, shuffled"
    rows = []
    for method in held.means:
        figures = [plus_minus(one.means[method]["mrr"]) if method in one.means else "" for one in columns.values()]
        rows.append([names.get(method, method), *figures])
    page: list[str | Grid] = [
        better_recipe(held, own.recipe, other.recipe),
        Grid(("MRR", *columns), rows),
        f"MRR, ± half of the 95 % interval. In-sample is memory: asked for what was trained on.{explained}",
    ]
    write_page(run / "report.md", page)
    honest = held.leak_free or held
    return page, honest.difference(other.recipe, best_baseline(honest)).reading == "better"


def _stage(title: str) -> None:
    console.print()
    console.rule(Text(title, "bold"), align="left")


def _samples(run: Path, dataset: Dataset, count: int = 2) -> None:
    """Recommendations for the first customer of each of the largest segments."""
    rec = Recommender.load(run, dataset=dataset, tell=note)
    segments = dataset.segments or dataset.customer_ids
    largest = Counter(segments).most_common()
    shown, total = min(count, len(largest)), len(largest)
    each = f"a customer of each of the {shown} largest of {total} {dataset.segment_word}s"
    _stage(f"Samples: {each if dataset.segments else f'the first {shown} of {total} customers'}")
    for segment, _ in largest[:count]:
        row = segments.index(segment)
        attributes = {f.column: dataset.customers.column(f.column)[row] for f in dataset.schema.customers.features}
        said = ", ".join(f"{name} {value}" for name, value in attributes.items() if split_keys(value, None))
        found = rec.recommend(customer_id=dataset.customer_ids[row], standing=rec.model.popularity.scale > 0)
        show_recommended(found, f"{segment}: {said}")
