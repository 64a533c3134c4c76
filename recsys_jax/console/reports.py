"""What a protocol found, written into a folder, and in some lines."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recsys_jax.console.pictures.embedding import Colouring, Space, embedding_space
from recsys_jax.console.pictures.plots import results_by_segment, segment_numbers
from recsys_jax.console.tables import Grid, Page, beside, differences, figure, plus_minus, say, write_page
from recsys_jax.console.terminal import answer, json_text
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.files import sheet_text, write_file
from recsys_jax.data.schema import label_of
from recsys_jax.errors import InputError
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import ALL, ALONE, CONTROL, ENSEMBLE, MODEL, Evaluation
from recsys_jax.evaluation.findings import best_baseline, findings, headline, most_important
from recsys_jax.evaluation.report import Report, six
from recsys_jax.models.trained import TrainedModel
from recsys_jax.storage import runs


def summary(found: Report) -> None:
    """Prints the model beside the best baseline and chance, without the leak where there was one."""
    found = found.leak_free or found
    mrr = {name: by_metric["mrr"] for name, by_metric in found.means.items()}
    beside(MODEL, best_baseline(found), mrr, found.difference)
    if matters := most_important(found):
        say(f"  {matters}", "  ")


def write(
    found: Report,
    dataset: Dataset,
    run: Path,
    protocol: str,
    k: int,
    *,
    model: str,
    derived: bool | None,
    asked: Sequence[str] = (),
) -> Page:
    """Writes what a protocol measured into the run; returns what follows the headline: all tables and findings.

    `asked` says what was, between the headline and the tables of the report. Raises `InputError` where the run's model
    is no longer the one of that fingerprint.
    """
    if runs.model_of(run) != model:
        raise InputError(f"{run}: found another model than the one that was measured; evaluate it again")
    said, title = findings(found, derived=derived), found.evaluation.protocol
    notes = [*dataset.notes, *dict.fromkeys(found.evaluation.methods[MODEL].notes)]
    page: list[str | Grid] = [*(f"* note: {note}" for note in notes), *_page(found, title, said)]
    honest: list[str] = []
    if found.leak_free is not None:
        honest = findings(found.leak_free)
        page += _page(found.leak_free, f"{title}, without the leak", honest)
    page += _importance(found.leak_free or found)
    runs.forget(run, [protocol], ())
    out = run / protocol
    write_file(out / "results.csv", _results_csv(found.evaluation, dataset))
    document = found.document(said, honest)
    answer[protocol] = {"finding": headline(found), **document}
    write_json(out / "metrics.json", document)
    write_page(out / "report.md", [headline(found), *asked, *page])
    results_by_segment(out / "results_by_segment.png", found, k, segment_numbers(dataset), derived=bool(derived))
    runs.record(run, {f"{protocol}: model": model, f"{protocol}: data": dataset.fingerprint})
    return page


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Writes a document as JSON."""
    write_file(path, json_text(document) + "\n")


def draw(
    run: Path, model: TrainedModel, dataset: Dataset, seed: int, colour: str | None = None, space: Space | None = None
) -> bool:
    """Draws the space of a model where that very picture is not there yet; whether it was drawn now."""
    picture, colouring = run / "embedding_space.png", Colouring.of(dataset, colour)
    shown = [runs.model_of(run), dataset.fingerprint, colouring.word, colouring.labels, dataset.categories, seed]
    print_of = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
    # It goes away with the model that it shows, and takes longer than many a protocol.
    if picture.exists() and runs.read_manifest(run).get("picture") == print_of:
        return False
    runs.record(run, {"picture": None})
    whole = embedding_space(picture, model, dataset, seed=seed, colour=colour, space=space)
    runs.record(run, {"picture": print_of if whole else None})  # with more fonts it is another one
    return True


def _page(found: Report, title: str, said: Sequence[str]) -> Page:
    """The tables, then the findings."""
    result = found.evaluation
    mrr, ndcg, *rest = "mrr", f"ndcg@{max(result.ks)}", *(one for one in result.metrics if "hit@" in one), "auc"

    def row(name: str, means: Mapping[str, Interval]) -> list[str]:
        return [name, plus_minus(means[mrr]), figure(means[ndcg].mean), *(figure(means[one].mean, 3) for one in rest)]

    count = len(result.seeds)
    named = {MODEL: f"model, {count} seeds", ENSEMBLE: f"ensemble of {count} seeds"} if count else {}
    rows = []
    for method, means in found.means.items():
        rows.append(row(named.get(method, method), means))
        if method == MODEL and count:
            spread = [figure(result.spread(one), 4 if one in (mrr, ndcg) else 3) for one in (mrr, ndcg, *rest)]
            rows.append(["  ± between seeds", *spread])
    if found.groups:
        rows.append([f"model, by {result.segment_word} (n)"])
        rows += [row(f"{group} ({result.queries[group]:,})", means) for group, means in found.groups.items()]
    notes = ["± is half of the 95 % interval, by a bootstrap over customers."]
    if count:
        notes.append("± between seeds is the standard deviation of one model's figure: training noise.")
    counted = f"{found.customers:,} customers, n = {result.queries[ALL]:,} purchases, {result.candidates:,} products"
    tables = [_lists(found), *([_per_customer(found)] if found.of_customers else [])]
    if found.differences:
        ranked = {method: {one: minus[one] for one in (mrr, ndcg)} for method, minus in found.differences.items()}
        tables.append(differences("model minus", ranked, "the model is"))
    return [f"# {title}", counted, Grid(("", mrr, ndcg, *rest), rows), *notes, *tables, *(f"* {one}" for one in said)]


def _lists(found: Report) -> Grid:
    """Coverage, Gini and novelty; the control hands out the model's lists, so it has no row."""
    names = list(found.lists[MODEL])
    rows = [
        [method, *(figure(by_name[name].mean, 2 if name.startswith("novelty") else 3) for name in names)]
        for method, by_name in found.lists.items()
    ]
    return Grid(("one list per customer", *names), rows)


def _per_customer(found: Report) -> Grid:
    """What each customer's list is worth, of each length."""
    rows = []
    for k in found.evaluation.ks:
        rows.append([f"mean over customers, K = {k}"])
        for method, means in found.of_customers.items():
            plain = [figure(means[f"{name}@{k}"].mean) for name in ("precision", "recall")]
            rows.append([method, *plain, *(plus_minus(means[f"{name}@{k}"]) for name in ("map", "ndcg"))])
    return Grid(("per customer", "precision", "recall", "MAP", "NDCG"), rows)


def _importance(found: Report) -> list[str | Grid]:
    """What is lost by each attribute, and by all of them at once; nothing where that was not measured."""
    if not found.importance:
        return []
    called = {name: label_of(name, found.evaluation.features) for name in found.importance}
    stated = {name: f"{called[name]} ({found.evaluation.stated[name]:.0%})".replace("%", " %") for name in called}
    lost = {stated[name]: {"MRR": one} for name, one in found.importance.items()}
    lost["all attributes at once"] = {"MRR": found.differences[CONTROL]["mrr"]}
    return [
        "# What the model listens to",
        f"How much MRR is lost where one attribute alone is another customer's: the mean of {ALONE} shuffles between "
        f"the customers asked, of whom the share in parentheses states it. Attributes that go together stand in for "
        f"each other, so each may lose little and all together much.",
        differences("own minus another's", lost, "own is"),
    ]


def _results_csv(result: Evaluation, dataset: Dataset) -> str:
    """One row per customer: the means over its purchases of what has a value."""
    rows: list[list[object]] = [["customer_id", result.segment_word, "purchased", "purchases", *result.metrics]]
    order = np.argsort(result.customers, kind="stable")
    for asked in np.split(order, np.flatnonzero(np.diff(result.customers[order])) + 1):
        first = asked[0]
        bought = "|".join(dataset.product_ids[product] for product in result.products[asked])
        persona = result.segments[first] if result.segments else ""
        found = (result.values[MODEL][metric][asked] for metric in result.metrics)
        known = (values[~np.isnan(values)] for values in found)
        means = [six(values.mean() if len(values) else np.nan) for values in known]
        rows.append([dataset.customer_ids[result.customers[first]], persona, bought, len(asked), *means])
    return sheet_text(rows)
