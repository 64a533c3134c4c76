"""Personas within the folds of a cross-validation: fitted on the training customers' reviews alone."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from recsys_jax.data.dataset import Dataset, assemble, read_products
from recsys_jax.data.splits import DatasetOfFold, Derived
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError, require
from recsys_jax.personas.catalogue import Catalogue, read_catalogue
from recsys_jax.personas.clustering import PersonaModel, assign, different, fit_personas, renamed
from recsys_jax.personas.customers import Reviews, customer_rows, read_reviews
from recsys_jax.personas.encoders import get_encoder


def personas_of_fold(folder: Path, dataset: Dataset, personas: PersonaModel) -> DatasetOfFold:
    """Customers made anew in each fold, with as many clusters as `personas` or, if it chose their number, a new choice.

    A fold with too few different reviews for so many clusters makes as many as these allow.

    A held-out customer gets its persona from the review of the very product that it is asked about. So each fold comes
    twice: as it is, and without that leak, where the customer has the persona of a training customer drawn at random
    (so personas come in the training customers' shares), and of its own review only what the profile states; what the
    text states is unread. Raises `InputError` where the customers of `dataset` were not made from the reviews that the
    folder holds now, and in a fold with fewer than 3 different reviews to learn from.
    """
    schema = dataset.schema
    reviews = read_reviews(folder, schema)
    products, product_ids = read_products(folder, schema)
    bought = [product_ids[row] for row in dataset.purchases[:, 1]]
    if bought != reviews.product_ids:
        raise InputError(
            f"{dataset.customers.source}: these customers were made from other reviews than those in {reviews.source}; "
            f"run recsys-jax personas again"
        )
    category = schema.products.category
    categories = None if category is None else dict(zip(product_ids, products.column(category), strict=True))
    catalogue = Catalogue() if schema.catalogue is None else read_catalogue(folder / schema.catalogue)
    # Several silhouettes: the number of clusters was chosen by them, so each fold chooses its own.
    k: int | Literal["auto"] = "auto" if len(personas.silhouettes) > 1 else len(personas.personas)
    seed = personas.seed
    # A pretrained encoder knows nothing of the reviews; one that is fitted on them is fitted in each fold.
    pretrained = None if personas.encoder.name == "lsa" else personas.encoder.encode(reviews.texts)

    # What the personas of a fold are called after, so that results by persona are of the same ones in each fold.
    before = assign(personas, personas.encoder.encode(reviews.texts) if pretrained is None else pretrained)[0]

    def dataset_of_fold(known: Bool[np.ndarray, " c"]) -> Derived:
        rows = np.flatnonzero(known)
        texts = [reviews.texts[row] for row in rows]
        encoder, embeddings = personas.encoder, pretrained
        require(len(set(texts)) >= 3, "different reviews to learn from in a fold", len(set(texts)), "3 or more")
        if embeddings is None:
            encoder = get_encoder("lsa", corpus=texts, seed=seed)
            embeddings = encoder.encode(reviews.texts)
        own = k if k == "auto" else min(k, different(embeddings[rows]) - 1)
        fitted = fit_personas(embeddings[rows], texts, catalogue, encoder=encoder, k=own, seed=seed)
        fitted = renamed(fitted, assign(fitted, embeddings[rows])[0], personas, before[rows])

        def made(reviews: Reviews, embeddings: Float[np.ndarray, "n d"]) -> Dataset:
            columns = customer_rows(reviews, fitted, embeddings, seed, categories)
            return assemble(schema, products, product_ids, Table("customers made from reviews", columns), folder)

        drawn = embeddings.copy()
        drawn[~known] = embeddings[np.random.default_rng([seed, 1]).choice(rows, int((~known).sum()))]
        unread = [text if seen else "" for text, seen in zip(reviews.texts, known.tolist(), strict=True)]
        return Derived(made(reviews, embeddings), made(replace(reviews, texts=unread), drawn))

    return dataset_of_fold
