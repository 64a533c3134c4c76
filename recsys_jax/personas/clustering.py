"""Review embeddings to named personas to customer rows.

Embeddings are centred, reduced by PCA and clustered by K-Means. Each cluster is named after the persona of the
catalogue whose keywords its reviews use most, one to one, so a name does not depend on the number K-Means gave it.

What a customer row holds is stated by the review's `profile_info`, else by its text, else it is the persona's. It never
comes from the purchased product. But persona and statements do come from the very review of that product, so a persona
has seen the answer: an evaluation on these customers must say so.

New reviews join fitted personas through the encoder that these were fitted with:

    model = load_personas(Path("runs/amoremall/personas"))
    labels, distances = assign(model, model.encoder.encode(["겨울이라 건조해서 보습 크림을 샀어요"]))
    names = [model.names[label] for label in labels]
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.data.dataset import Reviews
from recsys_jax.data.files import open_inside, read_arrays, read_toml, write_file
from recsys_jax.errors import InputError, choices
from recsys_jax.personas.encoders import Encoder, LsaEncoder, clean_text, get_encoder
from recsys_jax.personas.keywords import distinctive_keywords, keyword_evidence
from recsys_jax.personas.profiles import SKIN_CONCERNS, SKIN_TYPES, Stated, parse_profile, stated_in_text

__all__ = [
    "Persona",
    "PersonaModel",
    "assign",
    "attribute_sources",
    "check_seed",
    "customer_rows",
    "fit_personas",
    "load_personas",
    "read_catalogue",
    "save_personas",
]

# Principal components that K-Means sees. On a real mall's reviews and on the look-alike ones, 8 to 10 gave nearly the
# same clusters for every seed. 5 mixed personas; from 15 on, some seeds ended in a worse optimum: the rest is noise.
DIMENSIONS = 10
_OTHERS_AGE = (20, 44)
_LARGEST = 2**30  # Bytes of a file of personas: a thousand times what twenty thousand terms take.
_NAMED_BY_KEYWORDS = "Named by its keywords; skin type and concern as "


@dataclass(frozen=True)
class Persona:
    """A kind of customer: how reviews show it, and what such a customer is when the review does not say."""

    name: str
    description: str
    keywords: tuple[str, ...]
    skin_type: str
    skin_concern: str
    age: tuple[int, int]
    """The youngest and the oldest."""
    female_share: float


def read_catalogue(path: Path) -> tuple[Persona, ...]:
    """The `[[persona]]` tables of a TOML file. Raises `InputError` for whatever is not allowed there."""
    document = read_toml(path)
    tables = document.get("persona")
    listed = isinstance(tables, list) and bool(tables) and all(isinstance(table, dict) for table in tables)
    if set(document) != {"persona"} or not listed:
        raise InputError(f"{path}: found {choices(document) or 'nothing'}; allowed: one or more [[persona]] tables")
    personas = tuple(_persona(table, f"{path}, persona {number}") for number, table in enumerate(tables or (), 1))
    for number, persona in enumerate(personas):
        if persona.name in {other.name for other in personas[:number]}:
            raise InputError(f"{path}: two personas are named {persona.name!r}; names must differ")
    return personas


def _persona(table: Mapping[str, Any], where: str) -> Persona:
    def check(key: str, allowed: str, valid: bool) -> None:
        if not valid:
            found = f"found {table[key]!r}" if key in table else "it is not given"
            raise InputError(f"{where}: {key}: {found}; allowed: {allowed}")

    known = [field.name for field in fields(Persona)]
    for key in table:
        if key not in known:
            raise InputError(f"{where}: found the key {key!r}; allowed: {choices(known)}")
    value = table.get
    for key in ("name", "description"):
        text = value(key)
        check(key, "a text", isinstance(text, str) and bool(text.strip()))
    keywords, ages, share = value("keywords"), value("age"), value("female_share")
    words = isinstance(keywords, list) and all(isinstance(word, str) and word.strip() for word in keywords)
    check("keywords", "a list of different texts", words and 0 < len(keywords or ()) == len(set(keywords or ())))
    check("skin_type", choices(SKIN_TYPES), value("skin_type") in SKIN_TYPES)
    check("skin_concern", choices(SKIN_CONCERNS), value("skin_concern") in SKIN_CONCERNS)
    whole = isinstance(ages, list) and len(ages) == 2 and all(type(age) is int for age in ages)
    youngest, oldest = ages if whole and ages else (0, 0)
    check("age", "[YOUNGEST, OLDEST], whole numbers from 1 to 120", 1 <= youngest <= oldest <= 120)
    check("female_share", "a number from 0 to 1", type(share) in (int, float) and 0 <= (share or 0) <= 1)
    return Persona(**{**table, "keywords": tuple(keywords or ()), "age": tuple(ages or ())})


@dataclass(frozen=True)
class PersonaModel:
    """Personas fitted on reviews, able to assign others: in the catalogue's order, then those it does not hold."""

    encoder: Encoder
    """What the embeddings come from: embed new reviews with it."""
    personas: tuple[Persona, ...]
    """One per cluster; its place is the `persona_id`."""
    keywords: tuple[tuple[str, ...], ...]
    """The words that tell each cluster's reviews from the others."""
    evidence: tuple[float, ...]
    """The ground for each name: how far the use of its keywords lies above chance, in standard deviations."""
    nearest: tuple[str, ...]
    """The catalogue's persona whose keywords each cluster's reviews use most, whatever name the matching left it."""
    mean: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "p d"]
    centres: Float[np.ndarray, "k p"]
    silhouettes: Mapping[int, float]
    """The mean silhouette of each number of clusters that was tried."""
    seed: int
    """What the start of K-Means followed from; `customer_rows` draws from it too, so that folds can make them anew."""

    @property
    def names(self) -> tuple[str, ...]:
        """The persona names, by `persona_id`."""
        return tuple(persona.name for persona in self.personas)

    def doubt(self, persona_id: int) -> str:
        """What to say beside a name that the one-to-one matching left to a cluster that reads like another; else ""."""
        persona, nearest = self.personas[persona_id], self.nearest[persona_id]
        if nearest == persona.name or persona.description == _NAMED_BY_KEYWORDS + nearest:
            return ""
        return f"a leftover name: its reviews read more like {nearest}"


def check_seed(seed: int) -> None:
    """Raises `InputError` for a seed that K-Means does not take."""
    if not 0 <= seed <= 4294967295:
        raise InputError(f"seed: found {seed}; allowed: 0 to 4294967295")


def fit_personas(
    embeddings: Float[np.ndarray, "n d"],
    texts: Sequence[str],
    catalogue: Sequence[Persona],
    *,
    encoder: Encoder,
    k: int | Literal["auto"] = 6,
    k_range: Sequence[int] = range(2, 13),
    dimensions: int = DIMENSIONS,
    seed: int = 0,
) -> PersonaModel:
    """Clusters reviews and names the clusters; `k="auto"` takes the best silhouette in `k_range`.

    Raises `InputError` where `k` is not a number of clusters that these reviews allow, or `seed` is out of range.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    check_seed(seed)
    vectors = np.asarray(embeddings, np.float64)
    distinct = len(np.unique(vectors, axis=0)) if len(vectors) else 0
    tried = [size for size in k_range if 2 <= size < distinct] if k == "auto" else [k]
    if not tried or not all(2 <= size < max(distinct, 3) for size in tried):
        raise InputError(
            f"k: found {k!r}; allowed: 'auto' or 2 to {max(distinct - 1, 2)}; there are {distinct} different reviews"
        )
    # One thread: partial sums added in another order would let the same seed end in other last digits.
    with threadpool_limits(1):
        pca = PCA(min(dimensions, distinct - 1, vectors.shape[1]), svd_solver="full").fit(vectors)
        points = pca.transform(vectors)
        # Twenty starts: with one, runs on a few hundred reviews end in different local optima.
        fits = {size: KMeans(size, n_init=20, random_state=seed).fit(points) for size in tried}
        sample = {"sample_size": 5000, "random_state": seed} if len(points) > 5000 else {}
        scores = {size: float(silhouette_score(points, fit.labels_, **sample)) for size, fit in fits.items()}
    best = fits[max(tried, key=lambda size: scores[size])]
    cleaned = [clean_text(text) for text in texts]
    labels, size = best.labels_, len(best.cluster_centers_)
    words = distinctive_keywords(cleaned, labels, size)
    evidence = keyword_evidence(cleaned, labels, size, [persona.keywords for persona in catalogue])
    named, nearest = _match(evidence), evidence.argmax(axis=1)
    for cluster, persona in named.items():
        if evidence[cluster, persona] == evidence[cluster].max():  # among equals, the one it is named after
            nearest[cluster] = persona
    order = sorted(range(size), key=lambda cluster: (named.get(cluster, len(catalogue)), words[cluster]))
    personas: list[Persona] = []
    for cluster in order:
        if cluster in named:
            personas.append(catalogue[named[cluster]])
        else:
            like = catalogue[nearest[cluster]]
            name = _unused("_".join(words[cluster][:2]) or "unnamed", [*catalogue, *personas])
            told, keywords = _NAMED_BY_KEYWORDS + like.name, words[cluster] or like.keywords
            personas.append(replace(like, name=name, description=told, keywords=keywords, age=_OTHERS_AGE))
    return PersonaModel(
        encoder,
        tuple(personas),
        tuple(words[cluster] for cluster in order),
        tuple(float(evidence[cluster, named.get(cluster, nearest[cluster])]) for cluster in order),
        tuple(catalogue[nearest[cluster]].name for cluster in order),
        pca.mean_,
        pca.components_,
        best.cluster_centers_[order],
        scores,
        seed,
    )


def assign(
    model: PersonaModel, embeddings: Float[np.ndarray, "n d"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The nearest persona of each embedding, and the distance to its centre. Raises `InputError` for another width."""
    if embeddings.shape[1] != len(model.mean):
        raise InputError(
            f"embeddings: found {embeddings.shape[1]} numbers per review; these personas were fitted with "
            f"{len(model.mean)}, by the encoder {model.encoder.name!r}"
        )
    points = (np.asarray(embeddings, np.float64) - model.mean) @ model.components.T
    squares = np.stack([((points - centre) ** 2).sum(axis=1) for centre in model.centres], axis=1)  # (n, k)
    labels = squares.argmin(axis=1)
    return labels, np.sqrt(squares[np.arange(len(labels)), labels])


def _match(evidence: Float[np.ndarray, "clusters personas"]) -> dict[int, int]:
    """The one-to-one matching of clusters to personas with the greatest sum of evidence (the Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    return {int(row): int(column) for row, column in zip(*linear_sum_assignment(-evidence), strict=True)}


def _unused(name: str, personas: Sequence[Persona]) -> str:
    taken = {persona.name for persona in personas}
    numbers = (f"{name}_{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(candidate for candidate in numbers if candidate not in taken)


def _stated(reviews: Reviews) -> list[dict[str, tuple[Any, str]]]:
    """Per review: the attributes it states, each with where: the profile goes before the text."""
    rows = []
    for text, profile in zip(reviews.texts, reviews.profiles, strict=True):
        sources = {"text": stated_in_text(text), "profile_info": parse_profile(profile)[0]}
        row: dict[str, tuple[Any, str]] = {}
        for source, stated in sources.items():
            row |= {key: (value, source) for key, value in asdict(stated).items() if value is not None}
        rows.append(row)
    return rows


def customer_rows(
    reviews: Reviews,
    model: PersonaModel,
    embeddings: Float[np.ndarray, "n d"],
    seed: int,
    categories: Mapping[str, object] | None = None,
) -> dict[str, list[Any]]:
    """One customer per review, as columns. `categories` maps product ids to the column `product_category`.

    What is drawn for a customer depends on `seed` and the review's place alone, not on how many reviews there are.
    """
    labels, _ = assign(model, embeddings)
    rows = []
    for index, (label, stated) in enumerate(zip(labels.tolist(), _stated(reviews), strict=True)):
        persona = model.personas[label]
        rng = np.random.default_rng([seed, index])
        youngest, oldest = persona.age
        # Both are drawn, needed or not: a stated age must not change the gender that is drawn.
        drawn = {
            "age": int(rng.integers(youngest, oldest, endpoint=True)),
            "gender": "FM"[rng.random() >= persona.female_share],
        }
        given = {**drawn, "skin_type": persona.skin_type, "skin_concern": persona.skin_concern}
        given |= {key: value for key, (value, _) in stated.items()}
        row = {"user_id": f"user_{index + 1:04d}", "persona_id": label, "persona_name": persona.name}
        row |= {key: given[key] for key in ("age", "gender", "skin_type", "skin_concern")}
        row["purchased_product_id"] = reviews.product_ids[index]
        if categories is not None:
            row["product_category"] = categories[reviews.product_ids[index]]
        rows.append(row)
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def attribute_sources(reviews: Reviews) -> dict[str, Counter[str]]:
    """Per attribute, how many customers have it from "profile_info", "text" or "persona".

    The key "not used" counts the parts of profiles that mean nothing here or come after another of their kind.
    """
    stated = _stated(reviews)
    counts = {
        field.name: Counter(row.get(field.name, (None, "persona"))[1] for row in stated) for field in fields(Stated)
    }
    counts["not used"] = Counter(part for profile in reviews.profiles for part in parse_profile(profile)[1])
    return counts


def save_personas(model: PersonaModel, folder: Path) -> None:
    """Writes the model into `folder` as model.json and arrays.npz; no code in either."""
    arrays: dict[str, np.ndarray] = {name: getattr(model, name) for name in ("mean", "components", "centres")}
    if isinstance(model.encoder, LsaEncoder):
        lsa = model.encoder
        arrays |= {"lsa_terms": np.array(lsa.terms), "lsa_idf": lsa.idf, "lsa_components": lsa.components}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    document = {
        "format": 2,
        "encoder": model.encoder.name,
        "seed": model.seed,
        "personas": [asdict(persona) for persona in model.personas],
        "keywords": model.keywords,
        "evidence": model.evidence,
        "nearest": model.nearest,
        "silhouettes": {str(size): score for size, score in model.silhouettes.items()},
        "arrays_sha256": hashlib.sha256(content).hexdigest(),
    }
    write_file(folder / "arrays.npz", content)
    write_file(folder / "model.json", json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def load_personas(folder: Path, cache: Path | None = None) -> PersonaModel:
    """The model in `folder`, its encoder caching in `cache`. Raises `InputError` where it is absent or damaged."""
    try:
        with open_inside(folder, "model.json", largest=_LARGEST) as stream:
            document = json.loads(stream.read())
        with open_inside(folder, "arrays.npz", largest=_LARGEST) as stream:
            content = stream.read()
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder}: no readable persona model: {error}. recsys-jax personas writes one") from None
    if not isinstance(document, dict) or document.get("format") != 2:
        raise InputError(f"{folder / 'model.json'}: not a persona model of format 2. Fit the personas again")
    if document.get("arrays_sha256") != hashlib.sha256(content).hexdigest():
        raise InputError(
            f"{folder / 'arrays.npz'}: damaged: its checksum is not the one in model.json. Fit the personas again"
        )
    try:
        arrays = read_arrays(content)
        mean, components, centres = arrays["mean"], arrays["components"], arrays["centres"]
        encoder: Encoder
        if document["encoder"] == "lsa":
            encoder = LsaEncoder(tuple(arrays["lsa_terms"].tolist()), arrays["lsa_idf"], arrays["lsa_components"])
        else:
            encoder = get_encoder(document["encoder"], cache=cache)
        numbers = {name: array for name, array in arrays.items() if name != "lsa_terms"}
        for name, array in numbers.items():
            if array.dtype.kind != "f" or not np.isfinite(array).all():
                raise ValueError(f"{name}: found {array.dtype}; allowed: finite numbers")
        personas = tuple(_persona(table, f"{folder / 'model.json'}, persona") for table in document["personas"])
        keywords = tuple(tuple(words) for words in document["keywords"])
        evidence = tuple(float(value) for value in document["evidence"])
        nearest = tuple(str(name) for name in document["nearest"])
        silhouettes = {int(size): float(score) for size, score in document["silhouettes"].items()}
        seed = int(document["seed"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError) and str(folder) in str(error):
            raise
        raise InputError(f"{folder}: damaged: {error!r}. Fit the personas again") from None
    if not len(personas) == len(keywords) == len(evidence) == len(nearest):
        raise InputError(f"{folder}: damaged: its lists differ in length. Fit the personas again")
    shapes = [array.shape for array in (mean, components, centres)]
    fit = components.ndim == 2 and shapes == [components.shape[1:], components.shape, (len(personas), len(components))]
    if isinstance(encoder, LsaEncoder):
        terms, lsa = len(set(encoder.terms)), [encoder.idf.shape, encoder.components.shape]
        fit = fit and terms == len(encoder.terms) and lsa == [(terms,), (*mean.shape, terms)]
        shapes += lsa
    if not fit:
        raise InputError(f"{folder}: damaged: the shapes of its arrays {shapes} do not fit. Fit the personas again")
    return PersonaModel(encoder, personas, keywords, evidence, nearest, mean, components, centres, silhouettes, seed)
