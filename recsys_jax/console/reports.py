"""What a protocol found, written into a folder, and in some lines."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recsys_jax.console.places import held_out
from recsys_jax.console.tables import Grid, Page, beside, figure, plus_minus, span, write_page
from recsys_jax.console.terminal import progress
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.files import write_file
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import ALL, ENSEMBLE, MODEL, Evaluation, evaluate
from recsys_jax.evaluation.findings import best_baseline, findings, headline
from recsys_jax.evaluation.methods import Method
from recsys_jax.evaluation.plots import embedding_space, results_by_segment
from recsys_jax.evaluation.report import Report
from recsys_jax.models.trained import TrainedModel


def measure_held_out(
    folder: Path,
    dataset: Dataset,
    made: Path | None,
    methods: Mapping[str, Method],
    ks: Sequence[int],
    protocol: str,
    folds: int,
    seed: int,
) -> Evaluation:
    """The figures of a held-out protocol, with a bar meanwhile; one of the methods is the model."""
    split, of_fold = held_out(folder, dataset, made, protocol, folds, seed)
    with progress(protocol) as bar:
        return evaluate(dataset, split, methods, ks, dataset_of_fold=of_fold, seed=seed, progress=bar)


def summary(found: Report) -> list[str]:
    """The model beside the best baseline and chance, a line each."""
    found = found.leak_free or found
    best = best_baseline(found)
    names = {MODEL: MODEL, best: f"{best} (best baseline)", "random": "chance"}
    return beside(
        (
            shown,
            found.means[name]["mrr"],
            "" if name == MODEL else f"the model is {found.differences[name]['mrr'].reading}",
        )
        for name, shown in names.items()
    )


def write(found: Report, dataset: Dataset, out: Path, k: int, *, derived: bool, asked: Sequence[str] = ()) -> Page:
    """Writes what was measured into a folder; returns what follows the headline: all tables and findings.

    `asked` says what was, between the headline and the tables of the report.
    """
    said = findings(found, derived=derived)
    honest = [] if found.leak_free is None else findings(found.leak_free)
    page: list[str | Grid] = [f"* note: {note}" for note in dataset.notes]
    page += _page(found, found.evaluation.protocol, said)
    if found.leak_free is not None:
        page += _page(found.leak_free, f"{found.evaluation.protocol}, without the leak", honest)
    document = found.document(said, honest)
    write_file(out / "results.csv", _results_csv(found.evaluation, dataset))
    write_file(out / "metrics.json", json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    write_page(out / "report.md", [headline(found), *asked, *page])
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
