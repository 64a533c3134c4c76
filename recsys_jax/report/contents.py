"""What stands in the page, as its template reads it: facts, figures, personas, the space, lists."""

import csv
import json
import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from recsys_jax.config import Language, describe
from recsys_jax.console.pictures.embedding import Colouring, Space, categories
from recsys_jax.console.pictures.plots import MOST
from recsys_jax.console.places import following
from recsys_jax.console.recommendations import example
from recsys_jax.console.terminal import program
from recsys_jax.data.dataset import Dataset, read_schema
from recsys_jax.data.files import read_file
from recsys_jax.data.schema import label_of
from recsys_jax.data.tables import Table
from recsys_jax.data.tabular.readers import read_table
from recsys_jax.errors import InputError, installing
from recsys_jax.evaluation.engine import ALL, CONTROL, MODEL
from recsys_jax.evaluation.findings import best_baseline, bestsellers, most_important, rungs
from recsys_jax.evaluation.report import Report
from recsys_jax.evaluation.sentences import Sentences, reading
from recsys_jax.models.trained import TrainedModel
from recsys_jax.personas.clustering import CENTRAL_SHARE, EVIDENCE, PersonaModel, load_personas
from recsys_jax.personas.customers import not_used, read_reviews
from recsys_jax.personas.definition import quote
from recsys_jax.personas.keywords import central
from recsys_jax.retrieval.scoring import top_k
from recsys_jax.service.openapi import somebody
from recsys_jax.serving.catalogue import Catalogue

COLOURS = 7  # groups of customers, and kinds of products, that are told apart; the others are drawn alike
NAMED = 3  # products that share a vector and are named there
LISTED = 5  # products that are named for each segment
VERTICES = 400  # of the loss curve


def commands(run: Path, dataset: Dataset, model: TrainedModel, folder: Path | None) -> list[tuple[str, list[str]]]:
    """By what they do, commands that put the run into a shop, whose `folder` knows customers and their purchases."""
    known = () if folder is None else ("--dataset", folder)
    asked = json.dumps({"attributes": somebody(model.customers)}, ensure_ascii=False)
    scored = following("score", "CUSTOMERS.csv", "LISTS.csv", "--run", run, *known, "--names")
    served = following("serve", run, *known)
    return [
        ("one", [f"{program()} {example(run, dataset)} --explain"]),
        ("all", [f"{program()} {scored}"]),
        (
            "serve",
            [
                installing("serve"),
                f"{program()} {served}",
                f"curl --json {shlex.quote(asked)} 127.0.0.1:8000/recommend",
            ],
        ),
    ]


def facts(found: Report, dataset: Dataset, model: TrainedModel | None, folder: Path) -> dict[str, Any]:
    """What was run: sizes, recipe, seed, versions, and when."""
    made = datetime.fromtimestamp((folder / "model.json").stat().st_mtime, UTC) if model is not None else None
    packages = ("recsys_jax", "jax", "flax", "numpy")
    return {
        "sizes": [len(dataset.product_ids), len(dataset.customer_ids), len(dataset.purchases)],
        "segments": len(set(dataset.segments or ())),
        "recipe": None if model is None else describe(model.config),
        "chosen": {} if model is None else model.chosen,
        "seed": found.seed if model is None else model.config.seed,
        "split": found.evaluation.split,
        "protocol": found.evaluation.protocol,
        "queries": found.evaluation.queries[ALL],
        "asked": found.customers,
        "ranked": found.evaluation.candidates,
        "versions": [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)],
        "trained": made,
        "seconds": found.evaluation.seconds,
    }


def methods(found: Report, called: Mapping[str, str], say: Sentences) -> list[dict[str, Any]]:
    """The rows of the table, the best first: names, what the method is, its figures, and the model minus it."""
    rows = []
    for method in sorted(found.means, key=lambda name: -found.means[name]["mrr"].mean):
        minus = found.differences.get(method, {}).get("mrr")
        rows.append(
            {
                "name": called.get(method, say.name(method)),
                "kind": "popularity per" if method.startswith("popularity per ") else method,
                "own": method == MODEL,
                "means": found.means[method],
                "minus": minus,
                "reading": None if minus is None else reading(minus),
            }
        )
    return rows


def verdicts(found: Report, say: Sentences) -> list[tuple[str, str]]:
    """How the model stands to chance, where it does not beat that, to the best baseline, and to the bestseller list.

    Nothing of what is no merit: of what is in-sample, and so remembered, or of a bestseller list that chance equals.
    """
    if found.evaluation.split == "in-sample":
        return []
    stands = {name: reading(found.differences[name]["mrr"]) for name in rungs(found)}
    called = dict([bestsellers(found.names, say), ("random", say("yardstick.chance"))])
    order = sorted(stands, key=lambda name: (name != "random", name != best_baseline(found)))
    told = [name for name in order if name != "random" or stands[name] != "better" or len(stands) == 1]
    return [(stands[name], called.get(name, say.name(name))) for name in told]


def length(found: Report) -> int:
    """The length of the lists whose hits are shown: the longest of at most half of the products."""
    ks = found.evaluation.ks
    return max((k for k in ks if 2 * k <= found.evaluation.candidates), default=min(ks))


def beside(found: Report) -> list[tuple[str, str]]:
    """What the model is shown beside at the top, each once: the best baseline, the bestseller list, chance."""
    wanted = [("model", MODEL), ("best", best_baseline(found)), ("bestsellers", bestsellers(found.means)[0])]
    # The plainer word last: of the best baseline that it is a bestseller list, of that one that it is chance.
    kinds = {method: kind for kind, method in [*wanted, ("chance", "random")]}
    return [(kind, method) for method, kind in kinds.items()]


def segments(found: Report) -> dict[str, Any] | None:
    """Hits in a list by segment, the largest first; None where there are no segments."""
    result = found.evaluation
    if not found.groups:
        return None
    k = length(found)
    metric = f"hit@{k}"
    rivals = {name: kind for kind, name in beside(found) if kind in ("bestsellers", "chance")}
    rows: list[dict[str, Any]] = [
        {
            "name": None if group == ALL else group,
            "n": n,
            "own": found.means[MODEL][metric] if group == ALL else found.groups[group][metric],
            "rivals": {kind: result.mean(method, metric, group) for method, kind in rivals.items()},
        }
        for group, n in list(result.queries.items())[: MOST + 1]
    ]
    ends = [end for row in rows for end in (row["own"].high, row["own"].mean, *row["rivals"].values())]
    scale = float(np.nanmax(ends)) or 1.0
    return {"rows": rows, "scale": scale, "k": k, "total": len(found.groups)}


def importance(found: Report, language: Language) -> dict[str, Any] | None:
    """What is lost by each attribute, and at last by all at once; None where that was not measured."""
    if not found.importance:
        return None
    result, rows = found.evaluation, list[dict[str, Any]]()
    for name, lost in found.importance.items():
        called = label_of(name, result.features, language)
        rows.append({"name": called, "lost": lost, "reading": reading(lost), "stated": result.stated[name]})
    every = found.differences[CONTROL]["mrr"]
    rows.append({"name": None, "lost": every, "reading": reading(every), "stated": None})
    ends = [end for row in rows for end in (row["lost"].low, row["lost"].mean, row["lost"].high)]
    said = most_important(found, language)
    least, most = min(float(np.nanmin(ends)), 0.0), max(float(np.nanmax(ends)), 1e-9)
    return {"rows": rows, "least": least, "most": most, "said": said and f"{said.removesuffix('.')}."}


def loss(model: TrainedModel) -> dict[str, Any] | None:
    """The loss curve in a square of 100, y downwards, and some of its values; None of a model trained elsewhere."""
    losses = np.array(model.losses, np.float64)
    if len(losses) < 2:
        return None
    losses[np.abs(losses) < 1e-6 * np.abs(losses).max()] = 0  # the rounding of a logarithm that is nothing
    low, high = float(losses.min()), float(losses.max())
    kept = np.unique(np.linspace(0, len(losses) - 1, VERTICES).round().astype(int))
    x = 100.0 * kept / (len(losses) - 1)
    y = 100.0 * (high - losses[kept]) / ((high - low) or 1.0)
    told = np.unique(np.linspace(0, len(losses) - 1, 9).round().astype(int))
    return {
        "points": " ".join(f"{one:.2f},{two:.2f}" for one, two in zip(x, y, strict=True)),
        "low": low,
        "high": high,
        "count": len(losses),
        "unit": "epoch" if model.config.seeded else "step",
        "told": [(number + 1, float(losses[number])) for number in told],
    }


def personas(
    folder: Path, made: Path, encoder: str | None, language: Language
) -> tuple[list[dict[str, Any]], list[str]]:
    """Who the personas are: share, keywords, the most central reviews, how well founded each name is; and notes.

    Empty where the run has not, or no longer, what its personas were made of.
    """
    try:
        model = load_personas(made.parent / "personas", encoder=encoder)
        lines = list(
            csv.DictReader(StringIO(read_file(made.parent / "persona_labels.csv", inside=made.parent).decode()))
        )
        reviews = read_reviews(folder, read_schema(folder))
        labels = np.array(read_table(made).column("persona_id"), int)
        distances = np.array([float(line["distance"]) for line in lines])
    except (InputError, ValueError, KeyError):
        return [], []
    if not len(labels) == len(distances) == len(reviews):
        return [], []
    quotes = [quote(text) for text in reviews.texts]
    told = [
        {
            "name": persona.name,
            "description": persona.by_language.get(language, persona.description),
            "count": int(np.sum(labels == number)),
            "share": float(np.mean(labels == number)),
            "keywords": model.keywords[number],
            "quotes": [quotes[row] for row in central(quotes, labels, distances, number, 3)],
            "standing": model.standing(number),
            "short": _short(model, number),
            "nearest": model.nearest[number],
            "evidence": model.evidence[number],
            "central": model.central[number],
        }
        for number, persona in enumerate(model.personas)
    ]
    return told, not_used(reviews, model.catalogue)


def _short(model: PersonaModel, number: int) -> str:
    """The one of both criteria that a name lacks, as a part of a label's key; empty where that is none, or both."""
    used, told = model.evidence[number] > EVIDENCE, model.central[number] >= CENTRAL_SHARE
    lacks = {(True, False): "weak-central", (False, True): "weak-evidence"}.get((used, told), "")
    return lacks if model.standing(number) == "weak" else ""


def plane(model: TrainedModel, dataset: Dataset, space: Space, colouring: Colouring) -> dict[str, Any]:
    """What `page.js` draws: each vector once, with who has it, and what people know of it; places from 0 to 1000."""
    names = colouring.labels or [""] * len(dataset.customer_ids)
    groups, people = _numbered([names[row] for row in space.rows.tolist()], space.of_customer, colouring.ordered)
    kinds, things = _numbered(categories(model) or [""] * len(space.of_product), space.of_product, {})
    least, most = space.points.min(axis=0), space.points.max(axis=0)
    places = (1000 * (space.points - least) / np.maximum(most - least, 1e-9)).round().astype(int) * (1, -1) + (0, 1000)
    rows = [np.flatnonzero(space.of_product == number)[:NAMED].tolist() for number in range(len(things))]
    known, near = _products(model, [row for some in rows for row in some]), _nearest(space, dataset)
    customers = [[*place, counts] for place, counts in zip(places.tolist(), people, strict=False)]
    products = [
        [*place, counts, [known[row] for row in some], segment]
        for place, counts, some, segment in zip(places[len(people) :].tolist(), things, rows, near, strict=True)
    ]
    return {"groups": groups, "kinds": kinds, "customers": customers, "products": products}


def lists(model: TrainedModel, dataset: Dataset, space: Space) -> dict[str, Any] | None:
    """What each segment is shown: the products in the lists of most of its customers; None without segments."""
    members, total = _members(space, dataset), len(model.product_ids)
    if not members:
        return None
    k, vectors = max(1, min(10, total // 3)), model.product_embeddings[:, : space.customers.shape[1]]
    best = np.asarray(top_k(space.customers, vectors, k, bias=model.product_bias)[1])
    rows = []
    for name, own in list(members.items())[:MOST]:
        counts = np.bincount(best[own].ravel(), minlength=total)
        first = np.argsort(-counts, kind="stable")[:LISTED].tolist()
        known = _products(model, first)
        products = [(known[row], counts[row] / len(own)) for row in first if counts[row]]
        rows.append({"name": name, "n": len(own), "products": products})
    return {"rows": rows, "k": k, "total": len(members)}


def _products(model: TrainedModel, rows: Sequence[int]) -> dict[int, list[Any]]:
    """What people know some products by: the name, or else the id, brand and price."""
    table = Table(
        "the model's products", {name: [all_[row] for row in rows] for name, all_ in model.product_rows.items()}
    )
    arrays = model.product_embeddings[rows], model.product_bias[rows]
    shown = Catalogue.of(model, (), table, tuple(model.product_ids[row] for row in rows), *arrays).shown
    found = {}
    for row, one in zip(rows, shown, strict=True):
        price = one["price"]
        finite = not isinstance(price, float) or np.isfinite(price)
        found[row] = [one["name"] or one["product_id"], one["brand"], price if finite else None]
    return found


def _members(space: Space, dataset: Dataset) -> dict[str, np.ndarray]:
    """The vectors of the customers of each segment, one for each customer; the largest segment first."""
    if dataset.segments is None:
        return {}
    each, shown = np.array(dataset.segments)[space.rows], space.of_customer >= 0
    order = Counter(sorted(each[shown].tolist())).most_common()
    return {name: space.of_customer[shown & (each == name)] for name, _ in order}


def _nearest(space: Space, dataset: Dataset) -> list[str | None]:
    """The segment whose customers' mean vector lies nearest to each product that is drawn."""
    members = _members(space, dataset)
    if not members:
        return [None] * len(space.products)
    centres = np.array([space.customers[rows].mean(axis=0) for rows in members.values()])
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
    names = list(members)
    return [names[number] for number in (space.products @ centres.T).argmax(axis=1).tolist()]


def _numbered(
    labels: Sequence[str], of: np.ndarray, ordered: Mapping[str, str]
) -> tuple[list[list[Any]], list[list[list[int]]]]:
    """Labels with how many have each, the most frequent first, or in their own order; and by vector, [label, count].

    Beyond `COLOURS` of them, the rest is one, whose name is None.
    """
    counts = Counter(label for label, one in zip(labels, of.tolist(), strict=True) if one >= 0)
    names = [name for name in ordered if name in counts] or [
        name for name, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    ]
    if len(names) > COLOURS + 1:
        names = names[:COLOURS]
    number = {name: place for place, name in enumerate(names)}
    vectors: list[Counter[int]] = [Counter() for _ in range(int(of.max(initial=-1)) + 1)]
    for label, one in zip(labels, of.tolist(), strict=True):
        if one >= 0:
            vectors[one][number.get(label, len(names))] += 1
    out: list[list[Any]] = [[name, counts[name]] for name in names]
    if len(counts) > len(names):
        out.append([None, sum(counts.values()) - sum(counts[name] for name in names)])
    return out, [[[label, n] for label, n in one.most_common()] for one in vectors]
