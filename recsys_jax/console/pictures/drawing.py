"""How pictures are drawn: figures, and the fonts and signs of the texts in them."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recsys_jax.console.terminal import at_end, harmless
from recsys_jax.data.files import replace_file, sheet_text, write_file

BLUE, GREY = "#2f6db5", "#8a8f98"
FONT = "DejaVu Sans"  # matplotlib brings it
_KOREAN = "koreanize-matplotlib"  # a wheel with NanumGothic
_EAST_ASIAN = {"HANGUL", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC"}


class Letters:
    """The fonts for the texts of a picture, and what stands there in place of a text whose signs no font has."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.families, self._lacking = _fonts(frozenset("".join(map(_visible, texts))))
        self._replaced: dict[str, str] = {}

    def draw(self, text: str, instead: str) -> str:
        """The text, at most 40 characters of it, or what stands in its place."""
        shown = _visible(text)
        if self._lacking & set(shown):
            self._replaced[text] = instead
            return instead
        return shown if len(shown) <= 40 else f"{shown[:39]}…"

    @property
    def whole(self) -> bool:
        """Whether nothing was replaced."""
        return not self._replaced

    def list_beside(self, picture: Path) -> None:
        """Lists beside a picture what stands there for which text; an older list goes away where all are drawn."""
        path = picture.with_name(f"{picture.stem}_names.csv")
        if self.whole:
            path.unlink(missing_ok=True)
            return
        replaced = sorted(self._replaced.items(), key=lambda one: (len(one[1]), one[1]))  # persona 9 before 10
        rows = [("drawn as", "name"), *((instead, text) for text, instead in replaced)]
        write_file(path, harmless(sheet_text(rows)))
        undrawn = at_end.setdefault("pictures", _Undrawn())
        assert isinstance(undrawn, _Undrawn)
        undrawn.names |= dict(replaced)
        undrawn.signs |= self._lacking
        undrawn.lists[path] = None


class _Undrawn:
    """What a command's pictures could not draw, told once: several have the same names."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.signs: set[str] = set()
        self.lists: dict[Path, None] = {}

    def __call__(self) -> str:
        first = ", ".join(f"{text} (drawn as {instead})" for text, instead in [*self.names.items()][:3])
        more = f" and {len(self.names) - 3:,} more" if len(self.names) > 3 else ""
        scripts = {unicodedata.name(sign, "").split(" ")[0] for sign in self.signs}
        east_asian = scripts <= _EAST_ASIAN
        wheel = f", or pip install {_KOREAN}" if scripts == {"HANGUL"} else ""
        fonts, package = ("Noto Sans CJK", "fonts-noto-cjk") if east_asian else ("the Noto fonts", "fonts-noto")
        lists = f"{' and '.join(map(str, self.lists))} list{'s' * (len(self.lists) == 1)}"
        return (
            f"pictures: no installed font has the letters of {first}{more}, as {lists}; "
            f"install {fonts} (Debian and Ubuntu: apt install {package}; elsewhere: fonts.google.com/noto{wheel}) and "
            "run this again"
        )


def _visible(text: str) -> str:
    """A text without what has no sign: control characters, marks of direction, variation selectors."""
    joiners, selectors = "\u200c\u200d", "\ufe00\ufe0f"
    shown = (one for one in text if unicodedata.category(one)[0] != "C" or one in joiners)
    return "".join(one for one in shown if not selectors[0] <= one <= selectors[1])


def _in_a_package() -> list[str]:
    """Files of the Korean fonts in a wheel, where it is installed: for who may not install fonts on the machine."""
    spec = find_spec(_KOREAN.replace("-", "_"))
    folders = [] if spec is None else spec.submodule_search_locations or []
    return [str(path) for folder in folders for path in sorted(Path(folder).rglob("*.ttf"))]


@cache
def _fonts(signs: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Families of installed fonts that have the signs between them, the default first; and the signs that none has."""
    from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager

    families = [FONT]
    lacking = frozenset(sign for sign in signs if not sign.isascii())
    lacking -= _within(findfont(FontProperties(family=families)), lacking)
    if not lacking:
        return families, lacking
    # matplotlib keeps its list of fonts, and so does not see what was installed since.
    for path in sorted({*findSystemFonts(), *_in_a_package()} - {one.fname for one in fontManager.ttflist}):
        with suppress(OSError, RuntimeError, ValueError, KeyError):
            fontManager.addfont(path)
    plainest: dict[str, Any] = {}
    for one in fontManager.ttflist:
        # The last resort's signs are boxes, and TeX's are not where Unicode has them.
        if one.style == "normal" and not one.name.startswith(("Last Resort", "cm")):
            plainest[one.name] = min(plainest.get(one.name, one), one, key=_from_plain)
    having = {name: _within(one.fname, lacking, getattr(one, "index", 0)) for name, one in plainest.items()}
    # Chinese, Japanese and Korean fonts have the same signs, each in its own style.
    scripts = {unicodedata.name(sign, "").split(" ")[0] for sign in lacking}
    region = " KR" if "HANGUL" in scripts else " JP" if scripts & {"HIRAGANA", "KATAKANA"} else " SC"

    def order(name: str) -> tuple[object, ...]:
        unusual = any(word in name for word in ("Serif", "Mono", "Coding", "Condensed", "Light"))
        sans = "Sans" in name or "Gothic" in name
        return -len(having[name] & lacking), unusual, not sans, not name.startswith("Noto"), region not in name, name

    while lacking & frozenset().union(*having.values()):
        families.append(min(having, key=order))
        lacking -= having[families[-1]]
    return families, lacking


def _within(path: str, signs: Iterable[str], face: int = 0) -> frozenset[str]:
    """The signs that a font has: a face of a file, of which older versions of matplotlib know the first."""
    from matplotlib.ft2font import FT2Font

    options: dict[str, Any] = {"face_index": face} if face else {}
    with suppress(OSError, RuntimeError):  # a file that was removed, or is damaged
        known = FT2Font(path, **options).get_charmap()
        return frozenset(sign for sign in signs if ord(sign) in known)
    return frozenset()


def _from_plain(font: Any) -> int:
    """How far its weight is from a plain text's."""
    from matplotlib.font_manager import weight_dict

    weight = int(weight_dict.get(font.weight, font.weight))
    return abs(weight - 400)


@contextmanager
def picture(
    path: Path, letters: Letters, width: float, height: float, heights: Sequence[float] = (1,), columns: int = 1
) -> Iterator[Sequence[Any]]:
    """A figure with its panels, saved as a PNG afterwards; no global figure, so that many threads may draw."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A shop's names are no formulas: of one with two dollar signs, matplotlib would make mathematics, or an error.
    with rc_context({"font.family": letters.families, "text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).ravel())
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
        yield panels
        replace_file(path, lambda stream: figure.savefig(stream, format="png"))
    letters.list_beside(path)


def label_rows(axes: Any, labels: Sequence[str]) -> None:
    """Names what is drawn in rows, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
