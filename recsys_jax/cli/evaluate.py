"""Measures a recipe by one of several protocols, next to chance, popularity, naive Bayes and a control.

Examples: recsys-jax evaluate data/amoremall --protocol cross-validation --k 3 10
          recsys-jax evaluate shop --protocol time --full
          recsys-jax evaluate data/amoremall --seeds 8 --ensemble
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from recsys_jax import Dataset, InputError, TrainedModel, load_model
from recsys_jax.cli import train
from recsys_jax.config import Config, describe
from recsys_jax.console.places import following, held_out, made_customers, open_dataset, run_folder, write_set_aside
from recsys_jax.console.tables import Grid, Page, figure, plus_minus, say, show, span, write_page
from recsys_jax.console.terminal import console, progress, share_processors
from recsys_jax.data.files import write_file
from recsys_jax.data.values import as_key
from recsys_jax.evaluation.baselines import baselines, popularities
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import ALL, ENSEMBLE, KS, MODEL, Evaluation, evaluate, in_sample
from recsys_jax.evaluation.findings import best_baseline, findings, headline
from recsys_jax.evaluation.methods import Method, recipe
from recsys_jax.evaluation.plots import embedding_space, results_by_segment
from recsys_jax.evaluation.report import Report, report

Protocol = Literal["in-sample", "cross-validation", "hold-out", "time", "new-combinations", "new-products"]


@dataclass(frozen=True)
class Options:
    """Measures a recipe by one of several protocols, next to chance, popularity, naive Bayes and a control."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml."""
    run: Path | None = None
    """The folder with the trained model, by default runs/NAME; else the dataset's recipe is measured."""
    customers: Path | None = None
    """Another customer file than the dataset's, or than the one that `recsys-jax personas` made."""
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
    full: bool = False
    """Print all tables and findings, which report.md has in any case."""


def main(options: Options) -> str:
    """Measures, says what was found, and writes the figures."""
    if options.seed < 0:
        raise InputError(f"seed: found {options.seed}; allowed: 0 or more")
    run = run_folder(options.dataset, options.run)
    there = options.protocol == "in-sample" or (run / "model.json").exists()
    model = load_model(run) if there else None
    config = train.standard(options.dataset) if model is None else model.config
    seeds = train.seeds_from(config, options.seeds, options.ensemble)
    share_processors(config, len(seeds))
    if len(seeds) > 1 and options.protocol == "in-sample":
        raise InputError(
            f"seeds: found {options.seeds}; allowed: with held-out protocols alone, as the run holds one model; "
            f"recsys-jax train DATASET deep --seeds {options.seeds} measures in-sample"
        )
    dataset = open_dataset(options.dataset, run, options.customers)
    made = made_customers(options.dataset, run)
    if options.customers is not None and (made is None or options.customers.resolve() != made.resolve()):
        made = None
    if options.protocol == "in-sample":
        assert model is not None
        result = in_sample(model, dataset, options.k, others=popularities(dataset))
    else:
        beside = baselines(dataset, new_products=options.protocol == "new-products")
        result = measure_held_out(options, config, dataset, made, beside, seeds)
    found = report(result, seed=options.seed)
    whose = f"as {run} has no model" if model is None else f"as in {run}"
    anew = "" if result.split == "in-sample" else ", trained anew in each fold"
    leak = "" if result.leak_free is None else "; without the leak"
    say(
        f"Asked: {describe(config)}, {whose}{anew}; {result.protocol}; n = {result.queries[ALL]:,} of "
        f"{result.candidates:,} products{leak}"
    )
    say(headline(found))
    for line in summary(found):
        console.print(line)
    page = write(found, dataset, run / options.protocol, options.k[0], derived=made is not None)
    if options.full:
        show(page)
    write_set_aside(dataset.set_aside, run)
    written = f"Written to {run / options.protocol}: report.md, results.csv, metrics.json, results_by_persona.png"
    if model is not None and draw(run, model, dataset, options.seed):
        written += f"; to {run}: embedding_space.png"
    console.print(written)
    if model is None:
        customers = () if options.customers is None else ("--customers", options.customers)
        return following("train", options.dataset, *customers)
    return _example(run, dataset)


def measure_held_out(
    options: Options,
    config: Config,
    dataset: Dataset,
    made: Path | None,
    beside: Mapping[str, Method],
    seeds: Sequence[int],
) -> Evaluation:
    """The figures of a held-out protocol, with a bar meanwhile; `beside` are the methods to compare with."""
    split, of_fold = held_out(options.dataset, dataset, made, options.protocol, options.folds, options.seed)
    methods = {MODEL: recipe(config, seeds, ensemble=options.ensemble), **beside}
    with progress(options.protocol) as bar:
        return evaluate(dataset, split, methods, options.k, dataset_of_fold=of_fold, seed=options.seed, progress=bar)


def summary(found: Report) -> list[str]:
    """The model beside the best baseline and chance, a line each."""
    found = found.leak_free or found
    best = best_baseline(found)
    names = {MODEL: MODEL, best: f"{best} (best baseline)", "random": "chance"}
    width = max(map(len, names.values()))
    mrr = {name: found.means[name]["mrr"] for name in names}
    return [
        f"  {shown:<{width}}  MRR {one.mean:.4f} ({figure(one.low)} to {figure(one.high)})"
        + ("" if name == MODEL else f"  the model is {found.differences[name]['mrr'].reading}")
        for (name, one), shown in zip(mrr.items(), names.values(), strict=True)
    ]


def write(found: Report, dataset: Dataset, out: Path, k: int, *, derived: bool) -> Page:
    """Writes what was measured into a folder; returns the page with all tables and findings."""
    said = findings(found, derived=derived)
    honest = [] if found.leak_free is None else findings(found.leak_free)
    page = [headline(found), *_page(found, found.evaluation.protocol, said)]
    if found.leak_free is not None:
        page += _page(found.leak_free, f"{found.evaluation.protocol}, without the leak", honest)
    document = found.document(said, honest)
    write_file(out / "results.csv", _results_csv(found.evaluation, dataset))
    write_file(out / "metrics.json", json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    write_page(out / "report.md", page)
    results_by_segment(out / "results_by_persona.png", found.evaluation, k)
    return page


def draw(run: Path, model: TrainedModel, dataset: Dataset, seed: int) -> bool:
    """Draws the space of a model where that is not done yet; whether it was drawn now."""
    picture = run / "embedding_space.png"
    if picture.exists():  # it goes away with the model that it shows, and takes longer than many a protocol
        return False
    embedding_space(picture, model, dataset, seed=seed)
    return True


def _page(found: Report, title: str, said: Sequence[str]) -> Page:
    """The tables, then the findings."""
    result = found.evaluation
    counted = f"{found.customers:,} customers, n = {result.queries[ALL]:,} purchases, {result.candidates:,} products"
    notes = ["± is half of the 95 % interval, by a bootstrap over customers."]
    if result.seeds:
        notes.append("± between seeds is the standard deviation of one model's figure: training noise.")
    differences = [_differences(found)] if found.differences else []
    return [f"# {title}", counted, _means(found), *notes, _lists(found), *differences, *(f"* {one}" for one in said)]


def _columns(result: Evaluation) -> list[str]:
    """The metrics of the table; metrics.json has all."""
    ranks = ["mrr", f"ndcg@{max(result.ks)}"]
    return [*ranks, *(name for name in result.metrics if "hit@" in name), "auc"]


def _means(found: Report) -> Grid:
    result = found.evaluation
    names = _columns(result)
    mrr, ndcg, *rest = names

    def row(name: str, means: Mapping[str, Interval]) -> list[str]:
        return [name, plus_minus(means[mrr]), figure(means[ndcg].mean), *(figure(means[one].mean, 3) for one in rest)]

    count = len(result.seeds)
    named = {MODEL: f"model, {count} seeds", ENSEMBLE: f"ensemble of {count} seeds"} if count else {}
    rows = []
    for method, means in found.means.items():
        rows.append(row(named.get(method, method), means))
        if method == MODEL and count:
            spread = [result.spread(name) for name in names]
            rows.append(["  ± between seeds", *map(figure, spread[:2]), *(figure(one, 3) for one in spread[2:])])
    if found.groups:
        rows.append([f"model, by {result.segment_word} (n)"])
        rows += [row(f"{group} ({result.queries[group]:,})", means) for group, means in found.groups.items()]
    return Grid(("", *names), rows)


def _lists(found: Report) -> Grid:
    """Coverage, Gini and novelty; the control hands out the model's lists, so it has no row."""
    names = list(next(iter(found.lists.values())))
    rows = [
        [method, *(figure(by_name[name].mean, 2 if name.startswith("novelty") else 3) for name in names)]
        for method, by_name in found.lists.items()
    ]
    return Grid(("one list per customer", *names), rows)


def _differences(found: Report) -> Grid:
    mrr, ndcg, *_ = _columns(found.evaluation)
    rows = [
        [method if metric == mrr else "", metric, figure(one.mean, sign="+"), span(one), one.reading]
        for method, by_metric in found.differences.items()
        for metric, one in by_metric.items()
        if metric in (mrr, ndcg)
    ]
    return Grid(("model minus", "", "mean", "95 % interval", "the model is"), rows)


def _results_csv(result: Evaluation, dataset: Dataset) -> str:
    """One row per customer: the means over its purchases."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["customer_id", result.segment_word, "purchased", "purchases", *result.metrics])
    order = np.argsort(result.customers, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(result.customers[order])) + 1):
        first = rows[0]
        bought = "|".join(dataset.product_ids[product] for product in result.products[rows])
        means = [_mean(result.values[MODEL][metric][rows]) for metric in result.metrics]
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
        value = dataset.customers.column(feature.column)[0]
        keys = [key for key in map(as_key, value if isinstance(value, list) else [value]) if key is not None]
        if keys:
            stated[feature.column] = f"{feature.column}={','.join(keys)}"
    return following("recommend", run, *stated.values())
