"""Ranks recipes, such as `recsys-jax compare shop --configs my.toml --tune 20 --peers lightfm rectools`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from recsys_jax import Dataset, InputError
from recsys_jax.config import Config, describe, to_table, words
from recsys_jax.console import places, tables
from recsys_jax.console.options import Common, remember
from recsys_jax.console.pictures.plots import comparison_differences
from recsys_jax.console.reports import write_json
from recsys_jax.console.terminal import answer, console, note, progress, renamed, share_processors
from recsys_jax.data.dataset import read_schema
from recsys_jax.data.files import require_folder, write_file
from recsys_jax.data.splits import DatasetOfFold, Split
from recsys_jax.errors import choices, require
from recsys_jax.evaluation.baselines import baselines
from recsys_jax.evaluation.engine import Answers, evaluate, views_of_fold
from recsys_jax.evaluation.findings import ranking
from recsys_jax.evaluation.methods import (
    INNER,
    SOFTMAX,
    TUNED,
    Recipe,
    built_in,
    configs_text,
    read_configs,
    recipe,
    tune,
    tuned,
)
from recsys_jax.evaluation.report import METRICS, Comparison, compare
from recsys_jax.storage.runs import claim, require_own

FOUND = "tuned.toml"  # the hyper-parameters that were found
Protocol = Literal["cross-validation", "hold-out", "time", "new-combinations", "new-products"]


@dataclass(frozen=True)
class Options(Common):
    """Ranks recipes by what they reach on the same queries, with paired differences."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = places.MALL
    """The folder with dataset.toml."""
    configs: Path | None = None
    """A TOML file with a table for each recipe; without it, a built-in list and the dataset's own are compared."""
    protocol: Protocol = "cross-validation"
    """What is held out, as in `recsys-jax evaluate`."""
    folds: int = 5
    """Parts that are held out one after the other; hold-out and time hold out one such part."""
    seed: int = 0
    """How purchases fall into folds, the intervals' resamples, the tuning; the first of the seeds."""
    seeds: int = 3
    """Models of each deep recipe per fold, with this seed and the next ones."""
    encoder: str | None = None
    """The encoder that the personas were fitted with, where it is neither 'use' nor 'lsa'."""
    tune: int = 0
    """Hyper-parameters of --tune-recipe to try in each fold, on customers held out of its training part; and of all
    customers, for tuned.toml, which `recsys-jax train DATASET --config FILE` takes."""
    peers: tuple[Literal["lightfm", "rectools"], ...] = ()
    """Other recommenders to ask, tuned likewise, each in an environment that is made for it."""
    out: Path | None = None
    """The folder for what is written, by default runs/NAME/comparison/PROTOCOL."""
    full: bool = False
    """Print all tables, which report.md has in any case."""
    force: bool = False
    """Take over a run folder that has the files of others, or another dataset's run."""
    tune_recipe: Recipe = "deep"
    """The recipe that --tune tunes."""
    examples = (
        "data/amoremall",
        "shop --configs recipes.toml --protocol time",
        "shop --tune 20 --tune-recipe wide --full",
        "shop --peers lightfm rectools",
    )

    @staticmethod
    def translate(arguments: Sequence[str]) -> list[str]:
        """The arguments with the former name of `--tune` replaced, which is told in a line."""
        return [renamed(word, {"--search": "--tune"}) for word in arguments]


def main(options: Options) -> str | None:
    """Measures, says what was found, and writes the comparison."""
    _check(options)
    seeds = places.seeds_from(replace(SOFTMAX, seed=options.seed), options.seeds, ensemble=False)
    places.require_dataset(options.dataset)
    began = time.perf_counter()
    if options.out is None:
        run = places.run_folder(options.dataset, None, force=options.force)
        out = run / "comparison" / options.protocol
    else:
        run = out = options.out
        require_own(out, options.dataset, force=options.force)
    require_folder(out)
    configs = None if options.configs is None else read_configs(options.configs, note)
    share_processors(SOFTMAX, options.seeds)
    dataset, made = places.load(options.dataset, None)
    claim(run, options.dataset)
    if configs is None:
        configs, own = built_in(len(dataset.purchases)), read_schema(options.dataset).training
        configs |= {} if own is None or own in configs.values() else {"the dataset's own": own}
    split, of_fold = places.held_out(
        options.dataset, dataset, made, options.protocol, options.folds, options.seed, options.encoder
    )
    others = baselines(dataset, new_products=options.protocol == "new-products")
    _check_names(configs, [*others, *baselines(dataset), *TUNED.values()], options.peers)
    methods = others | {name: recipe(config, seeds) for name, config in configs.items()}
    if options.tune:
        methods[TUNED[options.tune_recipe]] = tuned(options.tune, seeds, seed=options.seed, recipe=options.tune_recipe)
    with progress(options.protocol) as bar:
        found = evaluate(
            dataset, split, methods, (10,), dataset_of_fold=of_fold, control=False, seed=options.seed, progress=bar
        )
    peers, problems = _ask_peers(options, dataset, split, of_fold, out)
    result = compare({**found.methods, **peers}, found.customers, seed=options.seed)
    honest = None if found.leak_free is None else compare(found.leak_free.methods, found.customers, seed=options.seed)

    counted = f"n = {result.queries:,} purchases, {result.customers:,} customers, {found.candidates:,} products"
    ranked = honest or result
    recipes = [name for name in methods if name not in others]
    headline = ranking(ranked, split.name, recipes)
    page: list[str | tables.Grid] = [f"* {name}: {describe(config)}" for name, config in configs.items()]
    if options.tune:
        page.append(
            f"* {TUNED[options.tune_recipe]}: tuned anew in each fold, by customers held out of its training part; "
            f"{FOUND} has what the same tuning finds with all customers"
        )
    page += [f"* note: {one}" for one in dataset.notes]
    leak = ", with the leak" if places.derived(options.dataset, dataset, made) else ""
    if honest is not None:  # first, as the first sentence is of it
        page += _page(honest, f"{split.title}, without the leak", counted)
    page += _page(result, f"{split.title}{leak}", counted)
    if leak:
        page.append("* Personas were derived from the review of the very purchase that is asked for.")
    page += [f"* {sentence}" for sentence in problems]
    seconds = time.perf_counter() - began
    document = {
        "protocol": split.title,
        "split": split.name,
        "seed": options.seed,
        "seeds": options.seeds,
        "recipes": {
            name: {field: value for field, value in to_table(config).items() if field != "seed"}
            for name, config in configs.items()
        },
        "hyper-parameters tried": options.tune,
        "left out": problems,
        "seconds": round(seconds, 1),
        "finding": headline,
        **result.document(),
        **({} if honest is None else {"leak-free": honest.document()}),
    }
    write_file(out / "comparison.csv", result.csv())
    write_json(out / "comparison.json", document)
    answer["comparison"] = document
    remember("compare", replace(options, out=out), out)
    tables.write_page(out / "report.md", [headline, *page])
    comparison_differences(out / "comparison.png", result, f"{split.title}{leak}\n{counted}")
    if options.tune:
        _tune(dataset, options, out / FOUND)

    tables.say_notes(dataset.notes, options.dataset)
    tables.say(f"Asked: {len(result.rows)} methods; {split.title}; {counted}")
    tables.say(headline)
    best = next(row.method for row in ranked.rows if row.method in recipes)
    baseline = next(row.method for row in ranked.rows if row.method in others)
    for shown in (ranked,) if honest is None or not peers else (ranked, result):
        if shown is not ranked:
            tables.say("With the leak, as the other recommenders were asked:")
        mrr = {row.method: row.means[METRICS[0]] for row in shown.rows}
        tables.beside(best, baseline, mrr, shown.difference, [peer for peer in peers if peer in mrr])
    for sentence in problems:
        tables.say(f"* {sentence}", "  ")
    if options.full:
        tables.show(page)
    console.print(f"{seconds:,.0f} s. Written to {out}: report.md and more")
    if ranked.difference(best, baseline).reading != "better":  # what need not be trained
        return None
    named = words(configs[best]) if best in configs else ["--config", out / FOUND]
    return places.following("train", options.dataset, *named)


def _tune(dataset: Dataset, options: Options, path: Path) -> None:
    """Writes the recipe that is tuned with all customers, as each fold's was with the fold's own."""
    with progress("tuning with all customers") as bar:
        everything = np.ones(len(dataset.purchases), bool)
        found = tune(dataset, everything, options.tune, seed=options.seed, recipe=options.tune_recipe, progress=bar)
    said = f"# The best of {options.tune} by MRR on one in {INNER} of all customers.\n"
    write_file(path, said + configs_text({"tuned": found.config}))


def _check(options: Options) -> None:
    require(options.tune >= 0, "tune", options.tune, "0 or more")
    if options.tune and find_spec("optuna") is None:  # told now, not when all else is measured
        raise ModuleNotFoundError(name="optuna")
    peers, new_products = ", ".join(options.peers), options.protocol == "new-products"
    if peers and find_spec("recsys_jax_benchmark") is None:
        raise InputError(
            f"peers: found {peers}; allowed: with recsys_jax_benchmark, the package under scripts/benchmark, which is "
            f"not installed"
        )
    if peers and new_products:
        raise InputError(f"peers: found {peers}; allowed: with protocols that rank all products")
    allowed = "with other protocols than new-products, as the tuning holds out customers"
    require(not (options.tune and new_products), "tune", options.tune, allowed)


def _check_names(configs: Mapping[str, Config], names: Sequence[str], peers: Sequence[str]) -> None:
    if peers:
        from recsys_jax_benchmark.peers.split import NAMES

        names = [*names, *NAMES.values()]
    for name in configs:
        if name in names:
            raise InputError(f"configs: found a recipe named {name!r}; allowed: other names than {choices(names)}")


def _ask_peers(
    options: Options, dataset: Dataset, split: Split, of_fold: DatasetOfFold | None, out: Path
) -> tuple[dict[str, Answers], list[str]]:
    """The peers' answers by name, and what went wrong with them."""
    if not options.peers:
        return {}, []
    from recsys_jax_benchmark.peers.split import NAMES, ask, write_split

    parts: dict[str, list[Answers]] = {NAMES[peer]: [] for peer in options.peers}
    problems: dict[str, str] = {}
    total = len(split.folds) * len(options.peers)
    with progress("peers") as bar:
        for number, fold in enumerate(split.folds):
            folder = out / "peers" / f"fold-{number + 1}"
            for place, peer in enumerate(options.peers):
                if peer in problems:
                    continue
                before, name = number * len(options.peers) + place, NAMES[peer]

                def asking(done: float, all_: float, word: str, before: int = before, name: str = name) -> None:
                    bar(before + done / all_, total, f"{name}, {word}")

                try:
                    write_split(folder, views_of_fold(dataset, split, fold, of_fold)[0], fold, options.seed)
                    parts[name].append(ask(peer, folder, asking))
                except (InputError, OSError) as error:
                    problems[peer] = f"{name} is left out: {error}"
                    del parts[name]
    return {name: Answers.join(each) for name, each in parts.items()}, list(problems.values())


def _page(result: Comparison, title: str, counted: str) -> tables.Page:
    mrr, ndcg, hit = METRICS
    rows = []
    for row in result.rows:
        figures = [row.means[ndcg].mean, row.means[hit].mean, row.spread[mrr]]
        rows.append([row.method, tables.plus_minus(row.means[mrr]), *map(tables.figure, figures)])
    page: list[str | tables.Grid] = [
        f"# {title}",
        counted,
        tables.Grid(("method", "MRR", "NDCG@10", "Hit@10", "over\nseeds"), rows),
        "± is half of the 95 % interval, by a bootstrap over customers. Over seeds: the standard deviation of one "
        "model's MRR; – where there is one model alone.",
    ]
    first, *others = result.rows
    if others:
        minus = {row.method: {"MRR": row.minus_best[mrr], "NDCG@10": row.minus_best[ndcg]} for row in others}
        page += [
            tables.differences(f"minus {first.method}", minus, "it is"),
            "Differences are paired query by query; where there are several seeds, their noise is in the interval. "
            "Each stands by itself: of twenty, one errs by chance.",
        ]
    return page
