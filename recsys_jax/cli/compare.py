"""Ranks recipes by what they reach on the same queries, with paired differences; searches and asks other recommenders.

Examples: python scripts/compare.py data/amoremall
          python scripts/compare.py shop --configs my.toml --protocol time
          python scripts/compare.py shop --protocol hold-out --search 20 --peers lightfm rectools
"""

import json
import math
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax import Dataset, DeepConfig, InputError, WideConfig
from recsys_jax.cli.train import recipe
from recsys_jax.config import Config
from recsys_jax.console.terminal import (
    console,
    following,
    held_out,
    made_customers,
    open_dataset,
    progress,
    run_folder,
    share_processors,
)
from recsys_jax.data.files import require_folder, write_file
from recsys_jax.data.splits import DatasetOfFold, Derived, Fold, Split
from recsys_jax.errors import choices
from recsys_jax.evaluation.comparison import METRICS, Answers, Comparison, compare, join
from recsys_jax.evaluation.configurations import SOFTMAX, built_in, read_configs
from recsys_jax.evaluation.contenders import SEARCH, Contender, baseline_contenders, contenders
from recsys_jax.evaluation.plots import comparison_differences
from recsys_jax_benchmark.peers.split import NAMES, ask, write_split

Protocol = Literal["cross-validation", "hold-out", "time", "new-combinations", "new-products"]


@dataclass(frozen=True)
class Options:
    """Ranks recipes by what they reach on the same queries, with paired differences."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml."""
    configs: Path | None = None
    """A TOML file with a table for each recipe; without it, a built-in list is compared."""
    protocol: Protocol = "cross-validation"
    """What is held out, as in scripts/evaluate.py."""
    folds: int = 5
    """Parts that are held out one after the other; hold-out and time hold out one such part."""
    seed: int = 0
    """How purchases fall into folds, the intervals' resamples, the search; the first of the seeds."""
    seeds: int = 3
    """Models of each towers recipe per fold, with this seed and the next ones."""
    search: int = 0
    """Settings of the towers to try in each fold, on customers held out of its training part."""
    peers: tuple[Literal["lightfm", "rectools"], ...] = ()
    """Other recommenders to ask, tuned likewise, each in an environment that is made for it."""
    out: Path | None = None
    """The folder for what is written, by default runs/NAME/comparison/PROTOCOL."""


def main(options: Options) -> str:
    """Measures, shows and writes the comparison."""
    _check(options)
    began = time.perf_counter()
    out = options.out or run_folder(options.dataset, None) / "comparison" / options.protocol
    require_folder(out)
    configs = None if options.configs is None else read_configs(options.configs)
    share_processors(SOFTMAX, options.seeds)
    dataset = open_dataset(options.dataset, None, None)
    made = made_customers(options.dataset)
    configs = configs or built_in(len(dataset.purchases))
    for name, config in configs.items():
        console.print(textwrap.fill(f"{name}: {recipe(config)}", 79, subsequent_indent="  "))
    split, of_fold = held_out(options.dataset, dataset, made, options.protocol, options.folds, options.seed)
    answers, problems = _measure(options, dataset, split, configs, of_fold, out)
    customers = np.concatenate([dataset.purchases[fold.queries, 0] for fold in split.folds])
    result = compare(answers, customers, seed=options.seed)
    products = max(_ranked(dataset, fold) for fold in split.folds)
    title = f"{split.title}\nn = {result.queries:,} purchases, {result.customers:,} customers, {products:,} products"
    _show(result, title, leak=made is not None)
    for sentence in problems:
        console.print(textwrap.fill(sentence, 79, initial_indent="* ", subsequent_indent="  "))
    seconds = time.perf_counter() - began
    _write(out, result, title, options, split, configs, problems, seconds)
    console.print(f"{seconds:,.0f} s. Written to {out}: comparison.csv, comparison.json, comparison.png")
    return _following(options, result, configs)


def _check(options: Options) -> None:
    for name, least in (("seed", 0), ("seeds", 1), ("search", 0)):
        found = getattr(options, name)
        if found < least:
            raise InputError(f"{name}: found {found}; allowed: {least} or more")
    if options.protocol == "new-products":
        if options.peers:
            raise InputError(f"peers: found {', '.join(options.peers)}; allowed: with protocols that rank all products")
        if options.search:
            raise InputError(
                f"search: found {options.search}; allowed: with other protocols than new-products, as the search holds "
                f"out customers"
            )


def _measure(
    options: Options,
    dataset: Dataset,
    split: Split,
    configs: Mapping[str, Config],
    of_fold: DatasetOfFold | None,
    out: Path,
) -> tuple[dict[str, Answers], list[str]]:
    """The answers of all methods to all folds, and what went wrong with the peers."""
    parts: dict[str, list[Answers]] = {}
    problems: dict[str, str] = {}
    count = len(split.folds)
    with progress(options.protocol) as bar:
        for number, fold in enumerate(split.folds):
            bar(number, count, f"fold {number + 1} of {count}: baselines")
            view = _view(dataset, fold, of_fold)
            # As in scripts/evaluate.py: fold i trains with the seed + i.
            seeds = [(options.seed + i + number) % 2**32 for i in range(options.seeds)]
            asked = baseline_contenders(view, fold)
            _check_names(configs, asked)
            asked |= contenders(view, fold, configs, seeds=seeds, trials=options.search, seed=options.seed)
            peers = [peer for peer in options.peers if peer not in problems]
            total = len(asked) + len(peers)

            def say(word: str, done: int) -> None:
                bar(number + done / total, count, f"fold {number + 1} of {count}: {word}")  # noqa: B023

            for done, (name, contender) in enumerate(asked.items()):
                say(name, done)
                parts.setdefault(name, []).append(contender(lambda word: say(f"{name}, {word}", done)))  # noqa: B023
            folder = out / "peers" / f"fold-{number + 1}"
            for done, peer in enumerate(peers, len(asked)):
                try:
                    write_split(folder, view, fold, options.seed)
                    answers = ask(peer, folder, lambda word: say(f"{NAMES[peer]}, {word}", done))  # noqa: B023
                    parts.setdefault(NAMES[peer], []).append(answers)
                except (InputError, OSError) as error:
                    problems[peer] = f"{NAMES[peer]} is left out: {error}"
                    parts.pop(NAMES[peer], None)
    return {name: join(each) for name, each in parts.items()}, list(problems.values())


def _check_names(configs: Mapping[str, Config], baselines: Mapping[str, Contender]) -> None:
    reserved = [*baselines, SEARCH, *NAMES.values()]
    for name in configs:
        if name in reserved:
            raise InputError(f"configs: found a recipe named {name!r}; allowed: other names than {choices(reserved)}")


def _view(dataset: Dataset, fold: Fold, of_fold: DatasetOfFold | None) -> Dataset:
    """The dataset as it looks from within the fold."""
    if of_fold is None:
        return dataset
    known = np.ones(len(dataset.customers), bool)
    known[dataset.purchases[fold.queries, 0]] = False  # each of these customers has one purchase
    seen = of_fold(known)
    return seen.dataset if isinstance(seen, Derived) else seen


def _ranked(dataset: Dataset, fold: Fold) -> int:
    return len(dataset.product_ids) if fold.candidates is None else int(fold.candidates.sum())


def _show(result: Comparison, title: str, *, leak: bool) -> None:
    heading, counted = title.split("\n")
    console.print()
    console.print(Text(heading, "bold").append(f"\n{counted}", "default not bold"))
    console.print()
    console.print(_ranking(result))
    console.print()
    console.print("± is half of the 95 % interval, by a bootstrap over customers. Over seeds: the")
    console.print("standard deviation of one model's MRR; – where there is one model alone.")
    if len(result.rows) > 1:
        console.print()
        console.print(_differences(result))
        console.print()
        console.print("Differences are paired query by query; where there are several seeds, their")
        console.print("noise is in the interval. Each stands by itself: of twenty, one errs by chance.")
    if leak:
        console.print(
            "* Personas were derived from the review of the very purchase that is asked for;\n"
            "  scripts/evaluate.py shows the figures without this leak."
        )


def _table(*headers: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for number, header in enumerate(headers):
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(header, justify=justify, no_wrap=number > 0, overflow="fold", vertical="bottom")
    return table


def _ranking(result: Comparison) -> Table:
    table = _table("method", "MRR", "NDCG@10", "Hit@10", "over\nseeds")
    mrr, *rest = METRICS
    for row in result.rows:
        half = (row.means[mrr].high - row.means[mrr].low) / 2
        first = f"{row.means[mrr].mean:.4f} ± {_figure(half)}"
        others = (f"{row.means[name].mean:.4f}" for name in rest)
        table.add_row(row.method, first, *others, _figure(row.spread[mrr]))
    return table


def _differences(result: Comparison) -> Table:
    table = _table(f"minus {result.rows[0].method}", "", "mean", "95 % interval", "it is")
    for row in result.rows[1:]:
        assert row.minus_best is not None
        for metric in METRICS[:2]:
            one = row.minus_best[metric]
            interval = f"{_figure(one.low, '+')} to {_figure(one.high, '+')}"
            name = row.method if metric == METRICS[0] else ""
            shown = metric.replace("ndcg", "NDCG").replace("mrr", "MRR")
            table.add_row(name, shown, _figure(one.mean, "+"), interval, row.reading(metric))
    return table


def _figure(value: float, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.4f}"


def _write(
    out: Path,
    result: Comparison,
    title: str,
    options: Options,
    split: Split,
    configs: Mapping[str, Config],
    problems: Sequence[str],
    seconds: float,
) -> None:
    document = {
        "protocol": split.title,
        "split": split.name,
        "seed": options.seed,
        "seeds": options.seeds,
        "recipes": {name: _plain(config) for name, config in configs.items()},
        "settings searched": options.search,
        "left out": list(problems),
        "seconds": round(seconds, 1),
        **result.document(),
    }
    write_file(out / "comparison.csv", result.csv())
    write_file(out / "comparison.json", json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    comparison_differences(out / "comparison.png", result, title)


def _plain(config: Config) -> dict[str, object]:
    """The config's fields but for the seed; no end, which JSON lacks, as a word."""
    recipe_name = "linear" if isinstance(config, WideConfig) else "towers"
    fields = {name: "inf" if value == math.inf else value for name, value in asdict(config).items() if name != "seed"}
    return {"recipe": recipe_name, **fields}


def _following(options: Options, result: Comparison, configs: Mapping[str, Config]) -> str:
    """How to train the best recipe, where the best method is one; of others, how to look at it more closely."""
    ours = [row.method for row in result.rows if row.method in configs]
    if not ours:
        return following("evaluate.py", options.dataset, "--protocol", options.protocol)
    config = configs[ours[0]]
    plain: Config = WideConfig() if isinstance(config, WideConfig) else DeepConfig()
    standard = asdict(plain)
    words = ["--recipe", "towers"] if isinstance(config, DeepConfig) else []
    for name, value in asdict(config).items():
        if name != "seed" and value != standard[name]:
            flag = name.replace("_", "-")
            words += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
            )
    return following("train.py", options.dataset, *words)
