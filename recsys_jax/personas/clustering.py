"""Review embeddings to named personas: PCA, K-Means, and a one-to-one matching with the catalogue.

A cluster is named after the persona of the catalogue whose keywords its reviews use most, the most central ones too, so
its name does not depend on the number that K-Means gave it; where no name holds, by its own keywords. New reviews join
fitted personas through the encoder that these were fitted with:

    model = load_personas(Path("runs/amoremall/personas"))
    labels, distances = assign(model, model.encoder.encode(["겨울이라 건조해서 보습 크림을 샀어요"]))
    names = [model.names[label] for label in labels]
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.data.files import UNSEALED, is_sealed, read_arrays, read_file, read_json, sealed, write_file
from recsys_jax.errors import InputError, choices, require, require_seed, shown
from recsys_jax.personas.catalogue import Catalogue, Persona, parse_catalogue, parse_persona, shipped
from recsys_jax.personas.encoders import BUILT_IN, Encoder, LsaEncoder, clean_text, get_encoder
from recsys_jax.personas.keywords import as_said, distinctive_keywords, keyword_evidence, nouns
from recsys_jax.personas.profiles import Draw

# Principal components for K-Means. On a real mall's reviews and on the synthetic ones, 8 to 10 gave nearly the same
# clusters for every seed; 5 mixed personas; with 15 or more, noise led some seeds to a worse optimum.
DIMENSIONS = 10
# A name of the catalogue holds where its keywords are used more than so many standard deviations above chance, and in
# such a share of the most central reviews.
EVIDENCE, CENTRAL_SHARE = 2.0, 0.5
# Bytes: ten thousand personas, and a thousand times the arrays for twenty thousand terms.
_LARGEST = {"model.json": 2**22, "arrays.npz": 2**30}
_NAMED_BY_KEYWORDS = "Named by its keywords"


@dataclass(frozen=True)
class PersonaModel:
    """Fitted personas, which new reviews can be assigned to: in the catalogue's order, then others."""

    encoder: Encoder
    """The encoder of the reviews, for new ones too."""
    personas: tuple[Persona, ...]
    """One per cluster, by `persona_id`."""
    keywords: tuple[tuple[str, ...], ...]
    """The distinctive words of each cluster's reviews, as these say them."""
    evidence: tuple[float, ...]
    """The evidence for each name: use of its keywords above chance, in standard deviations."""
    nearest: tuple[str, ...]
    """The persona of the catalogue with the most evidence for each cluster, before the one-to-one matching."""
    mean: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "p d"]
    centres: Float[np.ndarray, "k p"]
    silhouettes: Mapping[int, float]
    """The mean silhouette by number of clusters tried."""
    seed: int
    """The seed of K-Means and of `customer_rows`, so that folds can repeat both."""
    central: tuple[float, ...] = ()
    """The share of the most central reviews that use the keywords of the name; NaN in a model of a former version."""
    catalogue: Catalogue = field(default_factory=Catalogue)
    """What these were named after, and what is known of customers."""

    @property
    def names(self) -> tuple[str, ...]:
        """The persona names, by `persona_id`."""
        return tuple(persona.name for persona in self.personas)

    def standing(self, persona_id: int) -> Literal["holds", "like", "weak", "own", "leftover"]:
        """How well founded a name is.

        It is the catalogue's and holds; or the persona is named by its keywords: since another one has the name of the
        nearest (`like`), since too little speaks for that (`weak`), or since it is like none (`own`). Or the one-to-one
        matching left it a name though it reads like another (`leftover`, in the models of former versions).
        """
        name, nearest = self.names[persona_id], self.nearest[persona_id]
        if name.endswith(f" ({nearest})"):
            return "like" if _holds(self.evidence[persona_id], self.central[persona_id]) else "weak"
        if name == nearest:
            return "holds"
        return "own" if self.personas[persona_id].description.startswith(_NAMED_BY_KEYWORDS) else "leftover"

    def name_note(self, persona_id: int) -> str:
        """A note on a name that its reviews speak against; else ""."""
        nearest = self.nearest[persona_id]
        how = "only reviews at its edge are like" if self.evidence[persona_id] > EVIDENCE else "it is hardly like"
        notes = {
            "like": f"like {nearest}, whose name another one has",
            "weak": f"named by its own keywords, as {how} {nearest}",
            "leftover": f"a leftover name: its reviews read more like {nearest}",
        }
        return notes.get(self.standing(persona_id), "")

    def draws(self, persona_id: int) -> dict[str, Draw]:
        """What is drawn of its customers' attributes; an attribute of which nothing is drawn is absent."""
        own = self.personas[persona_id].draws
        every = {one.name: own.get(one.name, one.draw) for one in self.catalogue.attributes}
        return {name: draw for name, draw in every.items() if draw is not None}

    def use(self, persona_id: int) -> str:
        """The evidence for a name, or for the nearest one where none holds."""
        central = f"{self.central[persona_id]:.0%} of its most central reviews"
        return f"{self.evidence[persona_id]:+.1f} standard deviations above chance, and in {central}"


def _holds(evidence: Any, central: Any) -> Any:
    """Whether there is evidence enough for a name; for numbers and arrays."""
    return (evidence > EVIDENCE) & (central >= CENTRAL_SHARE)


def different(embeddings: Float[np.ndarray, "n d"]) -> int:
    """The number of different reviews; clusters of them must be fewer."""
    return len(np.unique(embeddings, axis=0)) if len(embeddings) else 0


def fit_personas(
    embeddings: Float[np.ndarray, "n d"],
    texts: Sequence[str],
    catalogue: Catalogue,
    *,
    encoder: Encoder,
    k: int | Literal["auto"] | None = None,
    k_range: Sequence[int] = range(2, 13),
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> PersonaModel:
    """Clusters reviews and names the clusters; `k="auto"` takes the best silhouette in `k_range`.

    By default there are as many as the catalogue has personas, or 6. With an empty catalogue they are named by their
    keywords. Raises `InputError` where `k` is not a number of clusters that these reviews allow, or `seed` is out of
    range.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    require_seed(seed)
    what = "k"
    if k is None:
        what, k = "k, by default the number of personas in the catalogue, or 6", max(len(catalogue.personas) or 6, 2)
    vectors = np.asarray(embeddings, np.float64)
    distinct = different(vectors)
    require(distinct >= 3, "different reviews", distinct, "3 or more, to make clusters of")
    tried = [size for size in k_range if 2 <= size < distinct] if k == "auto" else [k]
    allowed = f"'auto' or 2 to {distinct - 1}; there are {distinct} different reviews"
    require(bool(tried) and all(2 <= size < distinct for size in tried), what, k, allowed)
    # Rough shares of the time: K-Means takes as many as there are clusters, the components and the words ten each.
    done, total, told = 10, 20 + sum(tried), progress or (lambda done, total, word: None)
    fits, scores = {}, {}
    told(0, total, "principal components")
    # One thread: with more, the order of partial sums would change the last digits for the same seed.
    with threadpool_limits(1):
        pca = PCA(min(DIMENSIONS, distinct - 1, vectors.shape[1]), svd_solver="full").fit(vectors)
        points = np.asarray(pca.transform(vectors))  # scikit-learn may be set to return data frames
        sample = {"sample_size": 5000, "random_state": seed} if len(points) > 5000 else {}
        for size in tried:
            told(done, total, f"{size} clusters")
            # Twenty starts: with one, a few hundred reviews end in different local optima.
            fits[size] = KMeans(size, n_init=20, random_state=seed).fit(points)
            scores[size] = float(silhouette_score(points, fits[size].labels_, **sample))
            done += size
    told(done, total, "keywords")
    best = fits[max(tried, key=lambda size: scores[size])]
    cleaned = [clean_text(text) for text in texts]
    labels, size = best.labels_, len(best.cluster_centers_)
    distances = np.sqrt(((points - best.cluster_centers_[labels]) ** 2).sum(axis=1))
    words = distinctive_keywords(cleaned, labels, size)
    inside = [
        [text for text, label in zip(cleaned, labels.tolist(), strict=True) if label == one] for one in range(size)
    ]
    said = [as_said(*one) for one in zip(inside, words, strict=True)]
    listed = catalogue.personas or (Persona("", "", (), {}),)  # with none, one that nothing is like
    evidence, share = keyword_evidence(cleaned, labels, distances, size, [persona.keywords for persona in listed])
    # The one-to-one matching with the greatest sum of evidence (the Hungarian method), of names that hold.
    holds = _holds(evidence, share)
    matched = zip(*(side.tolist() for side in linear_sum_assignment(-np.where(holds, evidence, 0))), strict=True)
    named = {cluster: given for cluster, given in matched if holds[cluster, given]}
    nearest = evidence.argmax(axis=1).tolist()
    for cluster, given in named.items():
        if evidence[cluster, given] == evidence[cluster].max():  # ties go to the name it got
            nearest[cluster] = given
    like = [named.get(cluster, nearest[cluster]) for cluster in range(size)]
    # In the catalogue's order; what is like no persona comes last.
    places = [one if evidence[cluster, one] > 0 else len(listed) for cluster, one in enumerate(like)]
    order = sorted(range(size), key=lambda cluster: (places[cluster], cluster not in named, words[cluster]))
    personas: list[Persona] = []
    taken = {persona.name for persona in listed}
    for cluster in order:
        personas.append(listed[like[cluster]])
        if cluster not in named:
            # Nouns before verbs and adjectives, whose forms are no names.
            nouny = nouns(inside[cluster], words[cluster])
            each = zip(nouny, words[cluster], said[cluster], strict=True)
            called = [one for _, *one in sorted(each, key=lambda one: not one[0])]
            # 크림이 beside 크림 would say nothing more.
            second = [one for one in called if called[0][0] not in one[0] and one[0] not in called[0][0]][:1]
            own = " · ".join(form for _, form in (*called[:1], *second)) or "unnamed"
            bracket = f" ({personas[-1].name})" if places[cluster] < len(listed) else ""
            numbered = (f"{own}{f' {n}' if n > 1 else ''}{bracket}" for n in range(1, size + 2))
            name = next(one for one in numbered if one not in taken)
            taken.add(name)
            draws = {one.name: one.draw for one in catalogue.attributes if one.draw is not None}
            personas[-1] = Persona(name, _NAMED_BY_KEYWORDS, words[cluster] or (own,), {**personas[-1].draws, **draws})
    return PersonaModel(
        encoder,
        tuple(personas),
        tuple(said[cluster] for cluster in order),
        tuple(float(evidence[cluster, like[cluster]]) for cluster in order),
        tuple(listed[nearest[cluster]].name for cluster in order),
        pca.mean_,
        pca.components_,
        best.cluster_centers_[order],
        scores,
        seed,
        tuple(float(share[cluster, like[cluster]]) for cluster in order),
        catalogue,
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


def renamed(
    model: PersonaModel, labels: Int[np.ndarray, " n"], former: PersonaModel, before: Int[np.ndarray, " n"]
) -> PersonaModel:
    """The model, whose personas are called as those of the `former` with the most reviews in common.

    `labels` and `before` are what the same reviews are in either. Each name is given once; a persona that has no review
    in common with one that is left keeps its own.
    """
    from scipy.optimize import linear_sum_assignment

    common = np.zeros((len(model.names), len(former.names)), int)
    np.add.at(common, (labels, before), 1)
    pairs = zip(*linear_sum_assignment(-common), strict=True)
    given = {row: former.names[column] for row, column in pairs if common[row, column]}
    names = [given.get(row, f"{own} (2)" if own in given.values() else own) for row, own in enumerate(model.names)]
    personas = (replace(one, name=name) for one, name in zip(model.personas, names, strict=True))
    return replace(model, personas=tuple(personas))


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
        "format": 4,
        "sha256": UNSEALED,
        "encoder": model.encoder.name,
        "seed": model.seed,
        "catalogue": model.catalogue.source,
        "personas": [persona.table for persona in model.personas],
        "keywords": model.keywords,
        "evidence": model.evidence,
        "nearest": model.nearest,
        "central": model.central,
        "silhouettes": {str(size): score for size, score in model.silhouettes.items()},
        "arrays_sha256": hashlib.sha256(content).hexdigest(),
    }
    write_file(folder / "arrays.npz", content)
    write_file(folder / "model.json", sealed(json.dumps(document, ensure_ascii=False, indent=1) + "\n"))


def load_personas(folder: Path, cache: Path | None = None, *, encoder: str | None = None) -> PersonaModel:
    """The model in `folder`, its encoder caching in `cache`.

    Another encoder than those of `BUILT_IN` is taken only where it is the one that the caller names: a file must not
    choose what is read or fetched. Raises `InputError` where it isn't, and for a model that is absent or damaged.
    """
    path = folder / "model.json"
    try:
        said, content = (read_file(folder / name, inside=folder, largest=most) for name, most in _LARGEST.items())
        document = read_json(said)
        if document["format"] not in (2, 3, 4):
            raise InputError(f"{path}: not a persona model of format 4")
        # Format 2 had no checksum of model.json.
        whole = "sha256" not in document if document["format"] == 2 else is_sealed(said, document["sha256"])
        if not whole or document["arrays_sha256"] != hashlib.sha256(content).hexdigest():
            raise InputError(f"{folder}: damaged, or edited: its content is not what its checksum says")
        model = _model(document, read_arrays(content), f"{path}, persona", cache)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        told = isinstance(error, InputError) and str(folder) in str(error)
        reason = str(error) if told else f"{folder}: damaged: {shown(error, 300)}"
        raise InputError(f"{reason}. Fit the personas again: recsys-jax personas") from None
    if model.encoder.name not in (*BUILT_IN, encoder):
        raise InputError(
            f"{path}: found the encoder {shown(model.encoder.name)}; allowed: {choices(BUILT_IN)}, or another one that "
            "you name yourself: --encoder"
        )
    return model


def _model(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: str, cache: Path | None
) -> PersonaModel:
    """What `save_personas` wrote. Raises one of many errors for anything else."""
    for name, array in arrays.items():
        if name != "lsa_terms" and (array.dtype.kind != "f" or not np.isfinite(array).all()):
            raise ValueError(f"{name}: found {array.dtype}; allowed: finite numbers")
    mean, components, centres = arrays["mean"], arrays["components"], arrays["centres"]
    former = document["format"] < 4  # with the attributes of cosmetics
    catalogue = shipped() if former else parse_catalogue(document["catalogue"], where)
    personas = tuple(parse_persona(table, catalogue, where, former=former) for table in document["personas"])
    wanted = {"components": (len(components), *mean.shape), "centres": (len(personas), len(components))}
    encoder: Encoder
    if document["encoder"] == "lsa":
        terms = tuple(arrays["lsa_terms"].tolist())
        encoder = LsaEncoder(terms, arrays["lsa_idf"], arrays["lsa_components"])
        different = len(set(terms))
        wanted |= {"lsa_terms": (different,), "lsa_idf": (different,), "lsa_components": (*mean.shape, different)}
    else:
        encoder = get_encoder(document["encoder"], cache=cache)
    shapes = {name: array.shape for name, array in arrays.items()}
    if components.ndim != 2 or any(shapes[name] != shape for name, shape in wanted.items()):
        raise ValueError(f"the shapes of its arrays {shapes} do not fit")
    keywords = tuple(tuple(words) for words in document["keywords"])
    evidence = tuple(float(value) for value in document["evidence"])
    nearest = tuple(str(name) for name in document["nearest"])
    central = tuple(float(value) for value in ([math.nan] * len(personas) if former else document["central"]))
    if not len(personas) == len(keywords) == len(evidence) == len(nearest) == len(central):
        raise ValueError("its lists differ in length")
    silhouettes = {int(size): float(score) for size, score in document["silhouettes"].items()}
    arrays_, seed = (mean, components, centres), int(document["seed"])
    return PersonaModel(encoder, personas, keywords, evidence, nearest, *arrays_, silhouettes, seed, central, catalogue)
