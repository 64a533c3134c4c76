"""Pages of sentences and tables, shown on the terminal and written as Markdown; figures as people read them."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax.console.terminal import console, harmless, said
from recsys_jax.data.files import write_file
from recsys_jax.evaluation.bootstrap import Interval

WIDTH = 79  # sentences are wrapped so that they fit into 80 columns
NAME = 28  # what fits of a name there, beside its figures and "better than model"


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
        lines = []
        for values in (self.headers, ("---", *["---:"] * (count - 1)), *self.rows):
            plain = [value.replace("\n", " ").replace("|", "\\|") for value in values]
            lines.append(f"| {' | '.join([*plain, *[''] * (count - len(plain))])} |")
        return lines


Page = Sequence[str | Grid]
"""Headings, which begin with "# ", sentences, remarks, which begin with "* ", and tables."""


def show(page: Page) -> None:
    """Prints a page; remarks and sentences are wrapped."""
    for number, block in enumerate(page):
        if _begins(page, number):
            console.print()
        if isinstance(block, Grid):
            console.print(block.rich())
        elif block.startswith("# "):
            console.print(Text(block.removeprefix("# "), "bold"))
        else:
            say(block, "  " if block.startswith("* ") else "")


def say(sentence: str, indent: str = "") -> None:
    """Prints a sentence, wrapped and whole; lines after the first are indented."""
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    console.print(wrap.fill(sentence))


def say_notes(notes: Sequence[str], folder: Path) -> None:
    """Prints the first note on the dataset in `folder`, whole, and how many more there are; on a pipe, on one line."""
    said.extend(notes)
    if notes:
        more = f" (and {len(notes) - 1} more in report.md)" if len(notes) > 1 else ""
        line = f"note: {notes[0]}{more}".replace(f"{folder}/", "")
        (say if console.is_terminal else console.print)(line)


def beside(
    ours: str,
    baseline: str,
    mrr: Mapping[str, Interval],
    difference: Callable[[str, str], Interval],
    others: Sequence[str] = (),
) -> None:
    """Prints a method beside others, the best baseline and chance: a line each, and how these stand to it."""
    shown = {name: name[:NAME] for name in (ours, *others)}
    shown |= {baseline: f"{baseline[: NAME - 7]} (best)", "random": "chance"}
    width = max(map(len, shown.values()))
    for name, called in shown.items():
        found = f"MRR {mrr[name].mean:.4f} ({figure(mrr[name].low)} to {figure(mrr[name].high)})"
        reading = "" if name == ours else difference(name, ours).reading
        if reading in ("better", "worse"):  # of this line's method, beside the first
            reading += f" than {ours if len(ours) <= len('model') else 'it'}"
        console.print(f"  {called:<{width}}  {found}  {reading}".rstrip())


def write_page(path: Path, page: Page) -> None:
    """Writes a page as Markdown."""
    lines: list[str] = []
    for number, block in enumerate(page):
        lines += [""] if _begins(page, number) else []
        lines += block.markdown() if isinstance(block, Grid) else [block]
    write_file(path, harmless("\n".join(lines[1:])) + "\n")


def _begins(page: Page, number: int) -> bool:
    """Whether a blank line stands before a block: between remarks there is none."""
    remarks = [isinstance(one, str) and one.startswith("* ") for one in page[max(number - 1, 0) : number + 1]]
    return number == 0 or not all(remarks)


def figure(value: float, digits: int = 4, sign: str = "") -> str:
    """A number with so many digits; a dash where there is none.

    >>> figure(0.1), figure(0.1, 2, "+"), figure(math.nan)
    ('0.1000', '+0.10', '–')
    """
    return "–" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def plus_minus(found: Interval) -> str:
    """A mean, and half of its interval.

    >>> plus_minus(Interval(0.125, 0.1, 0.15, 50))
    '0.1250 ± 0.0250'
    """
    return f"{figure(found.mean)} ± {figure((found.high - found.low) / 2)}"


def differences(first: str, by_method: Mapping[str, Mapping[str, Interval]], last: str) -> Grid:
    """Paired differences, by method and metric, under their first and last header."""
    rows = []
    for method, by_metric in by_method.items():
        for place, (metric, one) in enumerate(by_metric.items()):
            bounds = f"{figure(one.low, sign='+')} to {figure(one.high, sign='+')}"
            rows.append(["" if place else method, metric, figure(one.mean, sign="+"), bounds, one.reading])
    return Grid((first, "", "mean", "95 % interval", last), rows)
