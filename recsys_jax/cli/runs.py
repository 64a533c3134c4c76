"""Lists the runs in a folder, such as `recsys-jax runs`: what each one is, and how good it was found to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from recsys_jax.config import parse_recipe
from recsys_jax.console.options import Common
from recsys_jax.console.places import again, following
from recsys_jax.console.tables import Grid, figure, plus_minus, say, show
from recsys_jax.console.terminal import console, print_json
from recsys_jax.data.files import absent, open_file, read_json
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import SPLITS
from recsys_jax.errors import InputError, require
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import ALL, MODEL
from recsys_jax.evaluation.findings import highest
from recsys_jax.storage import artifacts, runs

RUNS = Path("runs")
_LARGEST = 2**28


@dataclass(frozen=True)
class Options(Common):
    """Lists the runs in a folder with their key figures; of a damaged one, why it can't be used."""

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]] = RUNS
    """The folder with the runs, or a run itself."""
    lists = True
    examples = ("", "runs/amoremall --json")


def main(options: Options) -> str | None:
    """Reads what each run says of itself, and prints it."""
    if options.folder != RUNS and not options.folder.exists():
        raise InputError(absent(options.folder, "found nothing; allowed: a folder with runs"))
    require(options.folder == RUNS or options.folder.is_dir(), "folder", str(options.folder), "a folder with runs")
    alone = any((options.folder / name).exists() for name in (runs.MANIFEST, artifacts.MODEL))
    inside = sorted(options.folder.iterdir()) if options.folder.is_dir() else []
    folders = [options.folder] if alone else [one for one in inside if one.is_dir() and runs.is_run(one)]
    found = [_described(folder) for folder in folders]
    if options.json:
        print_json(found)
        return None
    if not found:
        console.print(f"There are no runs in {options.folder}")
        return "run"
    rows: list[list[str]] = []
    for dataset in dict.fromkeys(one["dataset"] for one in found):
        rows.append([dataset or "of an unknown dataset"])
        rows += [_row(one, options.folder) for one in found if one["dataset"] == dataset]
    show([Grid(("run", "recipe", "seed", "trained", "MRR", "best\nbaseline", "chance"), rows)])
    measured = {_name(one, options.folder): one["held_out"] for one in found if one["held_out"]}
    if measured:
        protocols = ", ".join(dict.fromkeys(held["protocol"] for held in measured.values()))
        say(f"MRR held out ({protocols}), ± half of the 95 % interval")
    for best in dict.fromkeys(held["baseline"]["name"] for held in measured.values()):
        of = (name for name, held in measured.items() if held["baseline"]["name"] == best)
        say(f"* best baseline {best}: {', '.join(of)}", "  ")
    for one in found:
        if one["problem"]:
            say(one["problem"])
    return next((one["next"] for one in found if one["next"]), None)


def _described(folder: Path) -> dict[str, Any]:
    """What a run says of itself; what it does not say is None."""
    said: dict[str, Any] = dict.fromkeys(("dataset", "source", "recipe", "seed", "trained", "held_out", "next"))
    said = {"run": str(folder), **said, "loads": False, "problem": None}
    try:
        source, known = runs.made_from(folder), runs.read_manifest(folder)
        said |= {"source": source and str(source), "dataset": source and source.name}
        said["held_out"] = _held_out(folder, known)
        if not (folder / artifacts.MODEL).exists():
            return said
        head = artifacts.read_head(folder)
        config = parse_recipe(head["config"], str(folder / artifacts.MODEL))
        changed = datetime.fromtimestamp((folder / artifacts.MODEL).stat().st_mtime).astimezone()
        schema = Schema.parse(head["schema"], str(folder / artifacts.MODEL))
        said |= {"dataset": schema.name, "recipe": config.recipe, "seed": config.seed, "loads": True}
        said["trained"] = changed.isoformat(timespec="seconds")
        if source is not None and (source / "dataset.toml").is_file() and not said["held_out"]:
            said["next"] = following("evaluate", *again(source, folder))
    except (InputError, OSError) as error:
        said |= {"problem": str(error), "loads": False}
    return said


def _held_out(folder: Path, known: dict[str, str]) -> dict[str, Any] | None:
    """What the model reached by the first protocol that was measured, without the leak where there was one."""
    model = runs.model_of(folder)
    for protocol in SPLITS:
        path = folder / protocol / "metrics.json"
        if not path.exists() or known.get(f"{protocol}: model", model) != model:
            continue
        try:
            with open_file(path, inside=folder, largest=_LARGEST) as stream:
                document = read_json(stream.read())
            document = document.get("leak-free") or document
            mrr = {name: by_metric["mrr"][ALL] for name, by_metric in document["methods"].items()}
            best = highest({name: one["mean"] for name, one in mrr.items()})
            named = {"MRR": mrr[MODEL], "chance": mrr["random"], "baseline": {"name": best, **mrr[best]}}
            for one in named.values():
                _interval(one)
        except InputError:
            raise
        except Exception as error:  # what a damaged document raises depends on what is missing from it
            raise InputError(f"{path}: damaged: {type(error).__name__}: {str(error)[:200]}") from None
        return {"protocol": protocol, **named}
    return None


def _name(one: dict[str, Any], folder: Path) -> str:
    path = Path(one["run"])
    return str(path.relative_to(folder)) if path != folder else str(path)


def _row(one: dict[str, Any], folder: Path) -> list[str]:
    name = _name(one, folder)
    if one["problem"]:
        return [name, "damaged", *[""] * 5]
    model = [one["recipe"], str(one["seed"]), one["trained"][:10]] if one["loads"] else ["no model", "", ""]
    held = one["held_out"]
    if held is None:
        return [name, *model, "", "", ""]
    others = (figure(held[which]["mean"]) for which in ("baseline", "chance"))
    return [name, *model, plus_minus(_interval(held["MRR"])), *others]


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(float(found["mean"]), float(found["low"]), float(found["high"]), int(found["n"]))
