"""Pages of sentences and tables, shown on the terminal and written as Markdown; figures as people read them."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax.console.terminal import console
from recsys_jax.data.files import write_file
from recsys_jax.evaluation.bootstrap import Interval

WIDTH = 79
"""Sentences are wrapped so that they fit into 80 columns."""


@dataclass(frozen=True)
class Grid:
    """A table: headers, and rows of text. A row of one value begins a section."""

    headers: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for number, header in enumerate(self.headers):
            # "cat. hit@10", short for category, on three lines: the table fits into 80 columns.
            lines = header.replace("category_", "cat.\n").replace("@", "\n@") if number else header
            justify = {"justify": "right"} if number else {"overflow": "fold"}
            table.add_column(lines, no_wrap=number > 0, vertical="bottom", **justify)  # type: ignore[arg-type]
        for row in self.rows:
            if len(row) == 1:
                table.add_section()
            table.add_row(*row)
        return table

    def markdown(self) -> list[str]:
        """The lines of a Markdown table."""
        count = len(self.headers)
        lines = [self.headers, ("---", *["---:"] * (count - 1)), *self.rows]
        return ["| " + " | ".join(_plain(one) for one in (*line, *[""] * (count - len(line)))) + " |" for line in lines]


Page = Sequence[str | Grid]
"""Headings, which begin with "# ", sentences, remarks, which begin with "* ", and tables."""


def show(page: Page) -> None:
    """Prints a page; remarks and sentences are wrapped."""
    for before, block in zip((None, *page), page, strict=False):
        remark = isinstance(block, str) and block.startswith("* ")
        if not (remark and isinstance(before, str) and before.startswith("* ")):
            console.print()
        if isinstance(block, Grid):
            console.print(block.rich())
        elif block.startswith("# "):
            console.print(Text(block.removeprefix("# "), "bold"))
        else:
            say(block, "  " if remark else "")


def say(sentence: str, indent: str = "", lines: int | None = None) -> None:
    """Prints a sentence, wrapped, on so many lines at the most; those after the first are indented."""
    wrap = textwrap.TextWrapper(
        WIDTH, subsequent_indent=indent, break_on_hyphens=False, max_lines=lines, placeholder=" …"
    )
    console.print(wrap.fill(sentence))


def say_notes(notes: Sequence[str], folder: Path) -> None:
    """Prints the notes on the dataset in `folder` on one line, which ends where there are more; report.md has all."""
    if notes:
        more = f" (and {len(notes) - 1} more in report.md)" if len(notes) > 1 else ""
        room = WIDTH - len(more)
        line = f"note: {notes[0]}".replace(f"{folder}/", "")
        console.print((line if len(line) <= room else line[: room - 2].rstrip() + " …") + more)


def beside(rows: Iterable[tuple[str, Interval, str]]) -> list[str]:
    """Names, their mean reciprocal ranks and a word on each, a line each."""
    listed = list(rows)
    width = max(len(name) for name, _, _ in listed)
    return [
        f"  {name:<{width}}  MRR {one.mean:.4f} ({figure(one.low)} to {figure(one.high)})  {word}".rstrip()
        for name, one, word in listed
    ]


def write_page(path: Path, page: Page) -> None:
    """Writes a page as Markdown."""
    lines: list[str] = []
    for block in page:
        if isinstance(block, Grid):
            lines += ["", *block.markdown()]
        else:
            remark = block.startswith("* ") and lines and lines[-1].startswith("* ")
            lines += ([] if remark else [""]) + [block]
    write_file(path, "\n".join(lines[1:]) + "\n")


def figure(value: float, digits: int = 4, sign: str = "") -> str:
    """A number with so many digits; a dash where there is none.

    >>> figure(0.1), figure(0.1, 2, "+"), figure(math.nan)
    ('0.1000', '+0.10', '–')
    """
    return "–" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def half(found: Interval) -> float:
    """Half of the interval's width."""
    return (found.high - found.low) / 2


def plus_minus(found: Interval) -> str:
    """A mean, and half of its interval.

    >>> plus_minus(Interval(0.125, 0.1, 0.15, 50))
    '0.1250 ± 0.0250'
    """
    return f"{figure(found.mean)} ± {figure(half(found))}"


def span(found: Interval) -> str:
    """The interval of a difference.

    >>> span(Interval(0.01, -0.01, 0.03, 50))
    '-0.0100 to +0.0300'
    """
    return f"{figure(found.low, sign='+')} to {figure(found.high, sign='+')}"


def _plain(value: str) -> str:
    return value.replace("\n", " ").replace("|", "\\|")
