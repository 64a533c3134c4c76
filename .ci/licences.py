"""Renews the table of docs/licences.md from the installed packages: python .ci/licences.py docs/licences.md."""

import re
import sys
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADER = "| package | version | licence |\n|---|---|---|\n"


def licence(package: str) -> str:
    """What the package says of itself: its licence expression, or the field before that, or its classifiers."""
    fields = metadata(package)
    stated = fields.get("License-Expression") or fields.get("License") or ""
    if stated and len(stated) <= 120 and "\n" not in stated:
        return stated
    # A field that holds the whole text of a licence names none.
    named = [line.split(" :: ")[-1] for line in fields.get_all("Classifier") or [] if line.startswith("License ::")]
    return ", ".join(named) or sys.exit(f"{package}: no licence in its metadata; look at its files")


def main(page: Path) -> None:
    """Writes a line for each pin of constraints.txt; the text before the table is written by hand, and stays."""
    pins = re.findall(r"^([\w.\-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), flags=re.M)
    rows = "".join(f"| {package} | {version} | {licence(package)} |\n" for package, version in pins)
    before, _ = page.read_text("utf-8").split(HEADER)
    page.write_text(before + HEADER + rows, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
