"""The wide recipe's training, its search of penalties included or not, and other libraries on the same purchases."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys_jax import Dataset, InputError, load_dataset
from recsys_jax.data.splits import Fold, hold_out_split
from recsys_jax_benchmark.process import OURS, Limits, Progress, in_process, in_turns, record

GIVEN = f"{OURS}, penalties given"
PEERS = {
    "LightFM": "lightfm",
    "irspack, iALS with attributes": "irspack",
    "PyTorch, logistic regression": "torch",
    "scikit-learn, logistic regression": "sklearn",
}
MOVIELENS, SHOP = "MovieLens-100k", "a generated shop"
# What each was tuned to: by `python -m recsys_jax_benchmark.peers NAME FOLDER`, our search, or hand (regressions).
# A method that has no setting of a dataset takes no part there.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    MOVIELENS: {
        OURS: {},
        GIVEN: {"own_l2": 100.0, "attribute_l2": float("inf"), "factor_l2": 1200.0},
        "LightFM": {"loss": "warp", "size": 32, "rate": 0.05, "penalty": 0.0, "identity": True, "epochs": 36},
        "irspack, iALS with attributes": {
            "size": 16,
            "weight": 1.0,
            "penalty": 0.01,
            "of_attributes": 1000.0,
            "epochs": 4,
        },
        "PyTorch, logistic regression": {"penalty": 30.0, "epochs": 1},
        "scikit-learn, logistic regression": {"penalty": 30.0, "epochs": 1},
    },
    SHOP: {
        OURS: {},
        GIVEN: {"own_l2": 10.0, "attribute_l2": 10.0, "factor_l2": 400.0},
        "LightFM": {"loss": "warp", "size": 64, "rate": 0.05, "penalty": 0.0, "identity": True, "epochs": 40},
        "irspack, iALS with attributes": {
            "size": 64,
            "weight": 0.03,
            "penalty": 0.01,
            "of_attributes": 1000.0,
            "epochs": 8,
        },
    },
}


@dataclass(frozen=True)
class Shop:
    """How much is generated; four fifths of the customers are learned from."""

    customers: int = 106_250
    products: int = 5_800
    purchases: int = 187_500
    seed: int = 0


def generate(size: Shop) -> Dataset:
    """A shop whose customers state two categories and four numbers, and buy by tastes that these explain in part."""
    rng = np.random.default_rng(size.seed)
    people, goods, tastes = size.customers, size.products, 12
    sex, region = rng.choice(3, people, p=(0.55, 0.42, 0.03)), rng.choice(12, people, p=rng.dirichlet(np.full(12, 5.0)))
    age = np.clip(rng.gamma(8, 5, people), 14, 90).round(1)
    height = (rng.normal(162, 7, people) + 8 * (sex == 1)).round(1)
    weight = (rng.normal(62, 11, people) + (height - 165) / 2).clip(30).round(1)
    income = np.exp(rng.normal(10, 0.5, people)).round()
    brand, category = rng.choice(120, goods, p=rng.dirichlet(np.ones(120))), rng.choice(25, goods)
    price = np.exp(rng.normal(3, 0.7, goods)).round(2)

    numbers = np.stack([age, height, weight, np.log(income)], axis=1)
    x = (numbers - numbers.mean(0)) / numbers.std(0)
    stated = np.hstack([np.eye(3)[sex], np.eye(12)[region], x, x**2 - 1, np.sin(2 * x[:, :1]), x[:, 1:2] * x[:, 2:3]])
    wanted = stated @ rng.normal(0, 0.25, (stated.shape[1], tastes)) + rng.normal(0, 0.5, (people, tastes))
    offered = rng.normal(0, 0.45, (goods, tastes))
    offered += rng.normal(0, 0.4, (120, tastes))[brand] + rng.normal(0, 0.5, (25, tastes))[category]
    popularity = rng.normal(0, 1.3, goods)
    activity = rng.gamma(1, 1, people)
    more = rng.choice(people, size.purchases - people, p=activity / activity.sum())
    customer = np.sort(np.concatenate([np.arange(people), more]))  # everybody buys once, and some again
    product = np.empty(len(customer), np.int64)
    for rows in np.array_split(np.arange(len(customer)), 1 + len(customer) // 2_000):
        utility = wanted[customer[rows]] @ offered.T + popularity
        product[rows] = (utility + rng.gumbel(size=utility.shape)).argmax(1)

    categories = {"kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "extra-row"}
    numeric = {"kind": "numeric", "standardise": True, "unknown": "error", "missing": "flag"}
    columns = {
        "products": {"brand": brand, "category": category, "price": price},
        "customers": {"sex": sex, "region": region, "age": age, "height": height, "weight": weight, "income": income},
    }
    schema: dict[str, Any] = {
        side: {
            "id": "id",
            "features": [
                {"name": name, **(numeric if column.dtype == float else categories)} for name, column in part.items()
            ],
        }
        for side, part in columns.items()
    }
    schema["interactions"] = {"customer": "customer", "product": "product", "repeat": "allowed"}
    return Dataset.of(
        products={"id": np.arange(goods), **columns["products"]},
        customers={"id": np.arange(people), **columns["customers"]},
        purchases={"customer": customer, "product": product},
        schema=schema,
    )


def _split(source: Path | Shop) -> tuple[Dataset, Fold]:
    dataset = generate(source) if isinstance(source, Shop) else load_dataset(source)
    [fold] = hold_out_split(dataset).folds
    return dataset, fold


def prepare(limits: Limits, source: Path | Shop, folder: Path) -> Iterator[dict[str, int]]:
    """A process that writes split.npz for others; yields what is trained on."""
    from recsys_jax_benchmark.peers.split import write_split

    dataset, fold = _split(source)
    write_split(folder, dataset, fold)
    customers, products = (len(np.unique(side)) for side in dataset.purchases[fold.train].T)
    yield {"purchases": int(fold.train.sum()), "customers": customers, "products": products}


def train(limits: Limits, source: Path | Shop, setting: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Our process: trains twice, the first time with what is compiled then, and yields seconds and the held-out MRR."""
    from recsys_jax import WideConfig, fit
    from recsys_jax.evaluation.methods import model_scorer
    from recsys_jax.evaluation.queries import Queries

    dataset, fold = _split(source)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        model = fit(dataset, WideConfig(**setting), train=fold.train)
        seconds.append(time.perf_counter() - began)
    mrr = Queries.of(dataset, fold, (1,)).reciprocal_ranks(model_scorer(model, dataset)).mean()
    yield {"steady_s": seconds[1], "compile_s": max(seconds[0] - seconds[1], 0.0), "mrr": float(mrr)}


def ask_peer(
    limits: Limits, peer: str, folder: Path, setting: Mapping[str, Any], cache: str | None
) -> Iterator[dict[str, Any] | str]:
    """A process that has a peer train once, in its environment in `cache`; yields a sentence where it cannot."""
    from recsys_jax_benchmark.peers.split import ask

    os.environ.pop("XDG_CACHE_HOME")
    os.environ |= {"XDG_CACHE_HOME": cache} if cache else {}
    try:
        answer = ask(peer, folder, lambda done, total, word: None, setting)
    except (InputError, OSError) as error:
        yield str(error)
    else:
        yield {"steady_s": answer.seconds, "compile_s": None, "mrr": float(answer.values["mrr"].mean())}


def measure(
    sources: Mapping[str, Path | Shop], repeats: int, limits: Limits, folder: Path, progress: Progress
) -> list[dict[str, Any]]:
    """For each dataset what is trained on, every repeat of each method, and why others are left out."""
    found = []
    for name, source in sources.items():
        place = folder / name
        place.mkdir(parents=True)
        progress(0, 1, f"{name}: preparing")
        with in_process(f"wide, preparing {name}", prepare, source, place, limits=limits) as ask:
            case: dict[str, Any] = {"title": name, **ask(), "methods": {}, "left_out": {}}
        settings = SETTINGS[name]
        times = (
            1 if isinstance(source, Shop) else repeats
        )  # what takes half a minute varies less than what takes one second
        for number, repeat, method in in_turns(list(settings), times):
            progress(number, times * len(settings), f"{name}: {method}, repeat {repeat + 1}")
            arguments: tuple[Any, ...] = (train, source, settings[method])
            if method in PEERS:
                if method in case["left_out"]:
                    continue
                arguments = (ask_peer, PEERS[method], place, settings[method], os.environ.get("XDG_CACHE_HOME"))
            with in_process(f"wide, {method}", *arguments, limits=limits) as ask:
                answer = ask()
            if isinstance(answer, str):
                case["left_out"][method] = answer
            else:
                record(case["methods"], method, **answer)
        found.append(case)
    return found
