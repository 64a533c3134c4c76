"""Measures a trained model by one of two protocols, next to chance and popularity.

Examples: python scripts/evaluate.py data/amoremall --protocol cross-validation --k 3 10
          python scripts/evaluate.py data/amoremall --seeds 8 --ensemble
"""

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from _common import command, console, made_customers, open_dataset, progress, run_folder, share_processors

import numpy as np
import train
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax import Dataset, InputError, TrainedModel, load_model
from recsys_jax.cells import as_key
from recsys_jax.evaluation import ALL, KS, Evaluation, cross_validation, in_sample
from recsys_jax.files import write_file
from recsys_jax.persona_folds import personas_of_fold
from recsys_jax.personas import load_personas
from recsys_jax.plots import embedding_space, results_by_segment


@dataclass(frozen=True)
class Options:
    """Measures a trained model by one of two protocols, next to chance and popularity."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml."""
    run: Path | None = None
    """The folder with the trained model; by default runs/NAME with the dataset's name."""
    customers: Path | None = None
    """Another customer file than the dataset's, or than the one that cluster_personas.py made."""
    protocol: Literal["in-sample", "cross-validation"] = "cross-validation"
    """in-sample: asked for what it was trained on (as published); cross-validation: for customers never seen."""
    k: tuple[int, ...] = KS
    """The lengths of the recommended lists that are measured."""
    folds: int = 5
    """Parts that the customers are divided into, each held out once (cross-validation)."""
    seed: int = 0
    """How customers fall into folds, and how the picture is laid out."""
    seeds: int = 1
    """Models per fold, with the trained model's seed and the next ones: mean and spread (cross-validation)."""
    ensemble: bool = False
    """Measure the mean of these models' scores, too."""


def main(options: Options) -> str:
    """Measures, shows and writes the figures."""
    run = run_folder(options.dataset, options.run)
    model = load_model(run)
    seeds = train.seeds_from(model.config, options.seeds, options.ensemble)
    share_processors(model.config, len(seeds))
    if len(seeds) > 1 and options.protocol == "in-sample":
        raise InputError(
            f"seeds: found {options.seeds}; allowed: with the cross-validation alone, as the run holds one model; "
            f"scripts/train.py --seeds {options.seeds} measures in-sample"
        )
    dataset = open_dataset(options.dataset, run, options.customers)
    made = made_customers(options.dataset, run)
    if options.customers is not None and (made is None or options.customers.resolve() != made.resolve()):
        made = None
    if options.protocol == "in-sample":
        result = in_sample(model, dataset, options.k)
    else:
        result = _cross_validate(options, model, dataset, made, seeds)

    out = run / options.protocol
    _show(result)
    _remarks(result, from_reviews=made is not None)
    write_file(out / "results.csv", _results_csv(result, dataset))
    write_file(out / "metrics.json", json.dumps(result.summary(), ensure_ascii=False, indent=1) + "\n")
    results_by_segment(out / "results_by_persona.png", result, options.k[0])
    embedding_space(run / "embedding_space.png", model, dataset, seed=options.seed)
    console.print(f"Written to {out}: results.csv, metrics.json, results_by_persona.png; to {run}: embedding_space.png")
    return _example(run, dataset)


def _cross_validate(
    options: Options, model: TrainedModel, dataset: Dataset, made: Path | None, seeds: Sequence[int]
) -> Evaluation:
    of_fold = None
    if made is not None:
        of_fold = personas_of_fold(options.dataset, dataset, load_personas(made.parent / "personas"))
    done = 0
    with progress("cross-validation") as bar:

        def after_fold() -> None:
            nonlocal done
            done += 1
            bar(done, options.folds, f"fold {done} of {options.folds}")

        return cross_validation(
            dataset,
            model.config,
            options.k,
            folds=options.folds,
            seed=options.seed,
            dataset_of_fold=of_fold,
            seeds=seeds,
            ensemble=options.ensemble,
            progress=after_fold,
        )


def _show(result: Evaluation) -> None:
    summary = result.summary()
    counted = f": {summary['customers']:,} customers, n = {summary['queries'][ALL]:,} purchases"
    title = Text(result.protocol, "bold").append(counted, "default not bold")
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for name in result.metrics:
        # "category_hit@10" on three lines: the table fits into 80 columns.
        header = name.replace("_", "\n").replace("@", "\n@")
        table.add_column(header, justify="right", no_wrap=True, min_width=5, vertical="bottom")
    count = len(result.seeds)
    named = {"model": f"model, mean of {count} seeds", "ensemble": f"ensemble of {count} seeds"} if count else {}
    for method in result.values:
        table.add_row(named.get(method, method), *(f"{result.mean(method, metric):.3f}" for metric in result.metrics))
        if method == "model" and count:
            table.add_row("  ± standard deviation", *(f"{result.spread(metric):.3f}" for metric in result.metrics))
    if result.segments is not None:
        table.add_section()
        table.add_row(f"model, by {result.segment_word} (n)")
        for group, count in summary["queries"].items():
            if group != ALL:
                figures = (f"{result.mean('model', metric, group):.3f}" for metric in result.metrics)
                table.add_row(f"{group} ({count:,})", *figures)
    console.print(table)


def _remarks(result: Evaluation, from_reviews: bool) -> None:
    """What the figures can't be taken for."""
    if result.protocol == "in-sample":
        console.print("In-sample: asked for what it was trained on. This is memory, not foresight.")
    if from_reviews:
        console.print("The personas come from the reviews of the very products that are asked for:")
        console.print("even held out, they have seen a part of the answer.")


def _results_csv(result: Evaluation, dataset: Dataset) -> str:
    """One row per customer: the means over its purchases."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["customer_id", result.segment_word, "purchased", "purchases", *result.metrics])
    order = np.argsort(result.customers, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(result.customers[order])) + 1):
        first = rows[0]
        bought = "|".join(dataset.product_ids[product] for product in result.products[rows])
        means = [f"{result.values['model'][metric][rows].mean():.6f}" for metric in result.metrics]
        persona = result.segments[first] if result.segments else ""
        writer.writerow([dataset.customer_ids[result.customers[first]], persona, bought, len(rows), *means])
    return stream.getvalue()


def _example(run: Path, dataset: Dataset) -> str:
    """A command that recommends to the first customer."""
    stated = {}
    for feature in dataset.schema.customers.features:
        cell = dataset.customers.column(feature.column)[0]
        values = [key for key in map(as_key, cell if isinstance(cell, list) else [cell]) if key is not None]
        if values:
            stated[feature.column] = shlex.quote(f"{feature.column}={','.join(values)}")
    return f"scripts/recommend.py {run} {' '.join(stated.values())}"


if __name__ == "__main__":
    command(main)
