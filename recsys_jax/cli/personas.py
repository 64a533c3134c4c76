"""Clusters a dataset's reviews into personas, such as `recsys-jax personas data/amoremall`."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.cells import cell_len, set_cell_size

from recsys_jax.console.options import Common, remember
from recsys_jax.console.pictures.plots import persona_distribution, silhouette_curve
from recsys_jax.console.places import MALL, again, alone, following, require_dataset, run_folder, write_set_aside
from recsys_jax.console.terminal import answer, console, json_text, progress, remark
from recsys_jax.data.dataset import read_products, read_schema
from recsys_jax.data.files import sheet_text, write_file
from recsys_jax.data.schema import Schema
from recsys_jax.errors import InputError, require_seed
from recsys_jax.personas.catalogue import Catalogue, read_catalogue
from recsys_jax.personas.clustering import assign, fit_personas, save_personas
from recsys_jax.personas.customers import Reviews, attribute_sources, customer_rows, not_used, read_reviews
from recsys_jax.personas.definition import persona_definition
from recsys_jax.personas.encoders import SentenceEncoder, get_encoder
from recsys_jax.storage import runs

WRITTEN = runs.CUSTOMERS, runs.MANIFEST, "persona_labels.csv", "personas/model.json", "reviews_set_aside.csv"


@dataclass(frozen=True)
class Options(Common):
    """Clusters a dataset's reviews into personas and makes one customer per review."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = MALL
    """The folder with dataset.toml and the product file whose reviews are read."""
    run: Path | None = None
    """The folder for everything this writes; by default runs/NAME with the dataset's name."""
    encoder: str = "use"
    """'use' (multilingual, offline), 'lsa' (no model), or a sentence-transformers name or folder."""
    k: int | Literal["auto"] | None = None
    """The number of clusters, or auto: the best silhouette from 2 to 12; else that of the catalogue's names, or 6."""
    seed: int = 0
    """The start of everything random: K-Means and what is drawn for customers."""
    cache: Path | None = None
    """The folder that keeps embeddings; by default the user's cache folder."""
    force: bool = False
    """Take over a run folder that has the files of others, or another dataset's run."""
    examples = ("data/amoremall", "shop --k auto", "shop --encoder lsa --run runs/shop-lsa")


def main(options: Options) -> str:
    """Reads, embeds, clusters and writes."""
    require_seed(options.seed)
    require_dataset(options.dataset)
    schema = read_schema(options.dataset)
    if schema.products.reviews is None:
        toml = options.dataset / "dataset.toml"
        raise InputError(f"{toml}: personas are made from reviews; [products] reviews names no column")
    catalogue = Catalogue() if schema.catalogue is None else read_catalogue(options.dataset / schema.catalogue)
    reviews = read_reviews(options.dataset, schema)
    out = run_folder(options.dataset, options.run, force=options.force, written=WRITTEN)
    with alone(out):
        return _make(options, schema, catalogue, reviews, out)


def _make(options: Options, schema: Schema, catalogue: Catalogue, reviews: Reviews, out: Path) -> str:
    console.print(f"{len(reviews):,} reviews from {reviews.source}")
    for note in reviews.validation.notes if reviews.validation else ():
        remark(note)

    with progress(f"fitting {options.encoder}") as bar:
        encoder = get_encoder(
            options.encoder, corpus=reviews.texts, cache=options.cache, seed=options.seed, progress=bar
        )
    with progress(f"embedding with {encoder.name}") as bar:
        embeddings = encoder.encode(reviews.texts, bar)
    if isinstance(encoder, SentenceEncoder) and encoder.note:
        remark(encoder.note)
    k, seed = options.k, options.seed
    with progress("clustering") as bar:
        model = fit_personas(embeddings, reviews.texts, catalogue, encoder=encoder, k=k, seed=seed, progress=bar)
    labels, distances = assign(model, embeddings)
    counts = np.bincount(labels, minlength=len(model.names)).tolist()

    named = options.k is None and catalogue.personas
    for k, score in model.silhouettes.items():
        chosen = "  (chosen)" if k == len(model.names) and len(model.silhouettes) > 1 else ""
        why = f"  (by the names in {schema.catalogue}; or --k)" if named else chosen
        console.print(f"silhouette at k = {k}: {score:.3f}{why}")
    width = max(map(cell_len, model.names))
    for number, (name, count, words) in enumerate(zip(model.names, counts, model.keywords, strict=True)):
        console.print(f"  {set_cell_size(name, width)} {count:>6,} reviews  {', '.join(words[:6])}")
        if note := model.name_note(number):
            console.print(f"  {'':<{width}} ({note})")

    answer["personas"] = [
        {"name": name, "reviews": count, "keywords": [*words], "note": model.name_note(number)}
        for number, (name, count, words) in enumerate(zip(model.names, counts, model.keywords, strict=True))
    ]
    answer["silhouettes"] = {str(k): score for k, score in model.silhouettes.items()}

    table, ids = read_products(options.dataset, schema)
    category = schema.products.category
    categories = None if category is None else dict(zip(ids, table.column(category), strict=True))
    with progress("reading what reviewers state") as bar:
        columns = customer_rows(reviews, model, embeddings, options.seed, categories, bar)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    sources = attribute_sources(reviews, model, labels)
    for sentence in not_used(reviews, catalogue):
        remark(sentence)

    # First they go and last they come, so whatever customers are there lie beside what they were made with.
    runs.claim(out, options.dataset)
    for name in (runs.CUSTOMERS, "silhouette.png"):
        (out / name).unlink(missing_ok=True)
    numbers: Counter[str] = Counter()
    lines: list[tuple[object, ...]] = [("product_id", "review", "persona", "distance")]
    for product, label, distance in zip(reviews.product_ids, labels, distances, strict=True):
        numbers[product] += 1
        lines.append((product, numbers[product], model.names[label], f"{distance:.4f}"))
    write_file(out / "persona_labels.csv", sheet_text(lines))
    persona_definition(out / "PERSONA_DEFINITION.md", model, reviews.texts, labels, distances, sources)
    save_personas(model, out / "personas")
    persona_distribution(out / "persona_distribution.png", model.names, counts)
    pictures = "persona_distribution.png"
    if options.k == "auto":
        ks = list(model.silhouettes)
        silhouette_curve(out / "silhouette.png", ks, [model.silhouettes[k] for k in ks], len(model.names))
        pictures += ", silhouette.png"
    write_file(out / runs.CUSTOMERS, json_text(rows))
    runs.record(out, runs.made_of(out, reviews.fingerprint, options.dataset / (schema.catalogue or "")))
    remember("personas", replace(options, run=out), out)
    console.print(f"Written to {out}: customers.json, persona_labels.csv, PERSONA_DEFINITION.md, {pictures}, personas/")
    write_set_aside(reviews.validation.set_aside if reviews.validation else (), out, "reviews_set_aside.csv")
    return following("train", *again(options.dataset, out))
