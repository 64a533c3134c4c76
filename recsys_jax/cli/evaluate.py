"""Measures a recipe by one of several protocols, next to chance, popularity, naive Bayes and a control.

Examples: python scripts/evaluate.py data/amoremall --protocol cross-validation --k 3 10
          python scripts/evaluate.py shop --protocol time
          python scripts/evaluate.py data/amoremall --seeds 8 --ensemble
"""

import csv
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax import Dataset, InputError, WideConfig, load_model
from recsys_jax.cli import train
from recsys_jax.config import Config
from recsys_jax.console.terminal import (
    console,
    following,
    held_out,
    made_customers,
    open_dataset,
    progress,
    run_folder,
    share_processors,
    write_set_aside,
)
from recsys_jax.data.files import write_file
from recsys_jax.data.values import as_key
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import ALL, KS, Evaluation, evaluate_split, in_sample
from recsys_jax.evaluation.findings import verdicts
from recsys_jax.evaluation.plots import embedding_space, results_by_segment
from recsys_jax.evaluation.report import Report, report

Protocol = Literal["in-sample", "cross-validation", "hold-out", "time", "new-combinations", "new-products"]


@dataclass(frozen=True)
class Options:
    """Measures a recipe by one of several protocols, next to chance, popularity, naive Bayes and a control."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml."""
    run: Path | None = None
    """The folder with the trained model, by default runs/NAME; where there is none, the default recipe is measured."""
    customers: Path | None = None
    """Another customer file than the dataset's, or than the one that cluster_personas.py made."""
    protocol: Protocol = "cross-validation"
    """What is held out: customers (all in turn, or one in FOLDS), the last purchases, and so on; in-sample: nothing."""
    k: tuple[int, ...] = KS
    """The lengths of the recommended lists that are measured."""
    folds: int = 5
    """Parts that are held out one after the other; hold-out and time hold out one such part."""
    seed: int = 0
    """How purchases fall into folds, the control's shuffles, the intervals' resamples, and the picture's layout."""
    seeds: int = 1
    """Models per fold, with the recipe's seed and the next ones: mean and spread (not in-sample)."""
    ensemble: bool = False
    """Measure the mean of these models' scores, too."""


def main(options: Options) -> str:
    """Measures, shows and writes the figures."""
    if options.seed < 0:
        raise InputError(f"seed: found {options.seed}; allowed: 0 or more")
    run = run_folder(options.dataset, options.run)
    trained = options.protocol == "in-sample" or (run / "model.json").exists()
    model = load_model(run) if trained else None
    config = WideConfig() if model is None else model.config
    seeds = train.seeds_from(config, options.seeds, options.ensemble)
    share_processors(config, len(seeds))
    if len(seeds) > 1 and options.protocol == "in-sample":
        raise InputError(
            f"seeds: found {options.seeds}; allowed: with held-out protocols alone, as the run holds one model; "
            f"scripts/train.py --recipe towers --seeds {options.seeds} measures in-sample"
        )
    dataset = open_dataset(options.dataset, run, options.customers)
    made = made_customers(options.dataset, run)
    if options.customers is not None and (made is None or options.customers.resolve() != made.resolve()):
        made = None
    if options.protocol == "in-sample":
        assert model is not None
        result = in_sample(model, dataset, options.k)
    else:
        of = "the default recipe, as there is no trained model" if model is None else "the trained model's recipe"
        console.print(f"Measured is {of} in {run}; each fold trains anew")
        result = _held_out(options, config, dataset, made, seeds)

    found = report(result, seed=options.seed)
    said = verdicts(found, derived=made is not None)
    honest = [] if found.leak_free is None else verdicts(found.leak_free)
    _show(found, result.protocol, said)
    if found.leak_free is not None:
        _show(found.leak_free, f"{result.protocol}, leak-free", honest)
    out = run / options.protocol
    write_file(out / "results.csv", _results_csv(result, dataset))
    document = found.document(said, honest)
    write_file(out / "metrics.json", json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    results_by_segment(out / "results_by_persona.png", result, options.k[0])
    write_set_aside(dataset.set_aside, run)
    written = f"Written to {out}: results.csv, metrics.json, results_by_persona.png"
    if model is None:
        console.print(written)
        customers = () if options.customers is None else ("--customers", options.customers)
        return following("train.py", options.dataset, *customers)
    picture = run / "embedding_space.png"
    if not picture.exists():  # it goes away with the model that it shows, and takes longer than many a protocol
        embedding_space(picture, model, dataset, seed=options.seed)
        written += f"; to {run}: {picture.name}"
    console.print(written)
    return _example(run, dataset)


def _held_out(
    options: Options, config: Config, dataset: Dataset, made: Path | None, seeds: Sequence[int]
) -> Evaluation:
    split, of_fold = held_out(options.dataset, dataset, made, options.protocol, options.folds, options.seed)
    done, folds = 0, len(split.folds)
    with progress(options.protocol) as bar:
        bar(0, folds, f"fold 1 of {folds}")

        def after_fold() -> None:
            nonlocal done
            done += 1
            bar(done, folds, f"fold {min(done + 1, folds)} of {folds}")

        return evaluate_split(
            dataset,
            config,
            split,
            options.k,
            seeds=seeds,
            ensemble=options.ensemble,
            dataset_of_fold=of_fold,
            seed=options.seed,
            progress=after_fold,
        )


def _show(found: Report, title: str, said: Sequence[str]) -> None:
    """The tables, then the verdicts."""
    result = found.evaluation
    counted = (
        f": {found.customers:,} customers, n = {result.queries[ALL]:,} purchases, {result.candidates:,} products ranked"
    )
    # Two lines: a title is not broken within 80 columns.
    console.print()
    console.print(Text(title, "bold").append(counted.replace(": ", "\n", 1), "default not bold"))
    console.print()
    console.print(_means(found))
    console.print()
    console.print("± is half of the 95 % interval, by a bootstrap over customers.")
    if result.seeds:
        console.print("± between seeds is the standard deviation of one model's figure: training noise.")
    console.print()
    console.print(_lists(found))
    console.print()
    if found.differences:
        console.print(_differences(found))
        console.print()
    for sentence in said:
        console.print(textwrap.fill(sentence, 79, initial_indent="* ", subsequent_indent="  "))


def _columns(result: Evaluation) -> list[str]:
    """The metrics of the table; metrics.json has all."""
    ranks = ["mrr", f"ndcg@{max(result.ks)}"]
    return [*ranks, *(name for name in result.metrics if "hit@" in name), "auc"]


def _table(first: str, *headers: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first, overflow="fold")
    for header in headers:
        # "cat. hit@10", short for category, on three lines: the table fits into 80 columns.
        lines = header.replace("category_", "cat.\n").replace("@", "\n@")
        table.add_column(lines, justify="right", no_wrap=True, vertical="bottom")
    return table


def _means(found: Report) -> Table:
    result = found.evaluation
    names = _columns(result)
    table = _table("", *names)

    def row(name: str, means: Mapping[str, Interval]) -> None:
        mrr, ndcg, *rest = names
        half = (means[mrr].high - means[mrr].low) / 2
        first = f"{_figure(means[mrr].mean, 4)} ± {_figure(half, 4)}"
        table.add_row(name, first, _figure(means[ndcg].mean, 4), *(_figure(means[one].mean) for one in rest))

    count = len(result.seeds)
    named = {"model": f"model, {count} seeds", "ensemble": f"ensemble of {count} seeds"} if count else {}
    for method, means in found.means.items():
        row(named.get(method, method), means)
        if method == "model" and count:
            spread = [result.spread(name) for name in names]
            table.add_row("  ± between seeds", *(_figure(one, 4) for one in spread[:2]), *map(_figure, spread[2:]))
    if found.groups:
        table.add_section()
        table.add_row(f"model, by {result.segment_word} (n)")
        for group, means in found.groups.items():
            row(f"{group} ({result.queries[group]:,})", means)
    return table


def _lists(found: Report) -> Table:
    """Coverage, Gini and novelty; the control hands out the model's lists, so it has no row."""
    names = list(next(iter(found.lists.values())))
    table = _table("one list per customer", *names)
    for method, by_name in found.lists.items():
        figures = (_figure(by_name[name].mean, 2 if name.startswith("novelty") else 3) for name in names)
        table.add_row(method, *figures)
    return table


def _differences(found: Report) -> Table:
    table = _table("model minus", "", "mean", "95 % interval", "the model is")
    _, ndcg, *_ = _columns(found.evaluation)
    for method, by_metric in found.differences.items():
        for metric, one in by_metric.items():
            if metric in ("mrr", ndcg):
                name = method if metric == "mrr" else ""
                interval = f"{_figure(one.low, 4, '+')} to {_figure(one.high, 4, '+')}"
                table.add_row(name, metric, _figure(one.mean, 4, "+"), interval, one.reading)
    return table


def _figure(value: float, digits: int = 3, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def _results_csv(result: Evaluation, dataset: Dataset) -> str:
    """One row per customer: the means over its purchases."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["customer_id", result.segment_word, "purchased", "purchases", *result.metrics])
    order = np.argsort(result.customers, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(result.customers[order])) + 1):
        first = rows[0]
        bought = "|".join(dataset.product_ids[product] for product in result.products[rows])
        means = [_mean(result.values["model"][metric][rows]) for metric in result.metrics]
        persona = result.segments[first] if result.segments else ""
        writer.writerow([dataset.customer_ids[result.customers[first]], persona, bought, len(rows), *means])
    return stream.getvalue()


def _mean(values: np.ndarray) -> str:
    """The mean of what has a value; nothing where none has."""
    known = values[~np.isnan(values)]
    return f"{known.mean():.6f}" if len(known) else ""


def _example(run: Path, dataset: Dataset) -> str:
    """A command that recommends to the first customer."""
    stated = {}
    for feature in dataset.schema.customers.features:
        cell = dataset.customers.column(feature.column)[0]
        values = [key for key in map(as_key, cell if isinstance(cell, list) else [cell]) if key is not None]
        if values:
            stated[feature.column] = f"{feature.column}={','.join(values)}"
    return following("recommend.py", run, *stated.values())
