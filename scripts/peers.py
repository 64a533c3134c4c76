"""Trains other recommenders, tuned on inner folds, on the split that ours is evaluated on, each in its own environment.

Example: python scripts/peers.py lightfm FOLDER [FOLDER ...]

FOLDER holds split.npz; peer-lightfm.npz is written beside it. The peers can't share our environment (RecTools needs
numpy below 2), so this script imports nothing of ours, and starts itself again in .venv-peers/NAME where the peer is
missing. Customers are asked for by their attributes alone: no peer sees who they are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small, and seconds are told of one thread

try:
    import numpy as np
    from scipy import sparse
except ModuleNotFoundError:  # a bare Python: main() starts the one that has them
    sparse = None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.integer[Any]]
    Floats = NDArray[np.floating[Any]]
    Setting = Mapping[str, Any]
    # Called after each epoch with its number and what would give the scores; whether to go on.
    Watch = Callable[[int, Callable[[], Floats]], bool]
    Train = Callable[["Task", Setting, Watch], None]

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"lightfm": "lightfm", "rectools": "rectools"}
PACKAGES = {"lightfm": ("lightfm-next", "numpy", "scipy"), "rectools": ("rectools", "torch", "numpy", "scipy")}
INNER_FOLDS = 4
SEED = 0
PATIENCE = 4
"""Training stops after this many measurements without a better one."""


class InputError(Exception):
    """What is wrong with the input, as a sentence."""


class Diverged(Exception):
    """The peer's numbers are no longer finite."""


# The exchange file


@dataclass(frozen=True)
class Split:
    """Attributes of all customers and products, who bought what, and what is asked for."""

    customers: Any
    """CSR, one row per customer."""
    products: Any
    """CSR, one row per product."""
    train: Ints
    """(n, 2): customer row, product row."""
    queries: Ints
    """(m, 2) likewise, of other customers."""
    inner: Ints
    """The inner fold of each training customer, -1 for the others."""


def read_split(folder: Path) -> Split:
    """The split.npz of the folder. Raises `InputError` where it isn't what it should be."""
    path = folder / "split.npz"
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; FOLDER is a folder with a split.npz")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: this is no file of numpy.savez without objects ({error})") from None
    names = [f"{side}_{part}" for side in ("customers", "products") for part in ("indptr", "indices", "data", "shape")]
    for name in (*names, "train", "queries", "inner"):
        if name not in arrays:
            raise InputError(f"{path}: the array {name} is missing; found: {', '.join(arrays) or 'none'}")
    customers, products = (_attributes(path, arrays, side) for side in ("customers", "products"))
    for name in ("train", "queries"):
        _check_pairs(path, name, arrays[name], customers.shape[0], products.shape[0])
    train, queries, inner = arrays["train"], arrays["queries"], arrays["inner"]
    if inner.shape != (customers.shape[0],) or inner.dtype.kind != "i":
        raise InputError(
            f"{path}, inner: found {_shown(inner)}; allowed: one signed whole number for each of the "
            f"{customers.shape[0]} customers"
        )
    both = np.intersect1d(train[:, 0], queries[:, 0])
    if len(both):
        raise InputError(f"{path}: customer {both[0]} stands in train and in queries; allowed: in one of them")
    trained = np.zeros(len(inner), bool)
    trained[train[:, 0]] = True
    wrong = np.flatnonzero(trained & ((inner < 0) | (inner >= INNER_FOLDS)))
    if len(wrong):
        raise InputError(
            f"{path}, inner: found {inner[wrong[0]]} for training customer {wrong[0]}; allowed: 0 to {INNER_FOLDS - 1}"
        )
    asked = np.flatnonzero(~trained & (inner >= 0) & np.isin(np.arange(len(inner)), queries[:, 0]))
    if len(asked):
        raise InputError(f"{path}, inner: found {inner[asked[0]]} for held-out customer {asked[0]}; allowed: -1")
    present = np.unique(inner[train[:, 0]])
    if 0 not in present or len(present) < 2:
        raise InputError(f"{path}, inner: found the folds {present.tolist()}; allowed: 0 and at least one other")
    return Split(customers, products, train, queries, inner)


def _attributes(path: Path, arrays: Mapping[str, Any], side: str) -> Any:
    shape, data = arrays[f"{side}_shape"], arrays[f"{side}_data"]
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise InputError(f"{path}, {side}_shape: found {_shown(shape)}; allowed: two whole numbers, rows and columns")
    try:
        matrix = sparse.csr_matrix(
            (data.astype(np.float32), arrays[f"{side}_indices"], arrays[f"{side}_indptr"]),
            shape=tuple(map(int, shape)),
        )
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path}, {side}: the four arrays are no CSR matrix ({error})") from None
    if not np.isfinite(matrix.data).all():
        raise InputError(f"{path}, {side}_data: found a number that is not finite; allowed: finite numbers")
    return matrix


def _check_pairs(path: Path, name: str, pairs: Any, customers: int, products: int) -> None:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu" or not len(pairs):
        raise InputError(
            f"{path}, {name}: found {_shown(pairs)}; allowed: whole numbers in two columns, at least one row"
        )
    for column, (what, count) in enumerate((("customer", customers), ("product", products))):
        wrong = np.flatnonzero((pairs[:, column] < 0) | (pairs[:, column] >= count))
        if len(wrong):
            raise InputError(
                f"{path}, {name}, row {wrong[0]}: found the {what} {pairs[wrong[0], column]}; allowed: 0 to {count - 1}"
            )


def _shown(array: Any) -> str:
    return f"{array.dtype} of shape {array.shape}"


# What a peer is given, and how its answer is measured


@dataclass(frozen=True)
class Task:
    """What a peer may train on, and who is asked about: by attributes alone, each kind of customer once."""

    customers: Any
    """CSR, the attributes of the training customers."""
    products: Any
    """CSR, the attributes of the products that occur in training; no others are ranked."""
    pairs: Ints
    """(n, 2): row of `customers`, row of `products`."""
    asked: Any
    """CSR, the attributes that occur among the queries' customers."""
    rows: Ints
    """For each query the row of `asked`."""
    targets: Ints
    """For each query the row of `products`, -1 where it does not occur in training."""

    @classmethod
    def of(cls, split: Split, train: Ints, queries: Ints) -> Task:
        """The task to answer the queries after training on the pairs of `train`."""
        people, customer = np.unique(train[:, 0], return_inverse=True)
        candidates, product = np.unique(train[:, 1], return_inverse=True)
        place = np.full(split.products.shape[0], -1)
        place[candidates] = np.arange(len(candidates))
        asked, rows = np.unique(queries[:, 0], return_inverse=True)
        kinds, kind = distinct(split.customers[asked].toarray())
        return cls(
            split.customers[people],
            split.products[candidates],
            np.stack([customer.ravel(), product.ravel()], 1),
            sparse.csr_matrix(kinds),
            kind[rows.ravel()],
            place[queries[:, 1]],
        )


def outer_task(split: Split) -> Task:
    """All training customers answer for the held-out ones."""
    return Task.of(split, split.train, split.queries)


def inner_task(split: Split) -> Task:
    """The training customers outside inner fold 0 answer for those in it; the queries play no part."""
    held = split.inner[split.train[:, 0]] == 0
    return Task.of(split, split.train[~held], split.train[held])


def distinct(rows: Floats) -> tuple[Floats, Ints]:
    """The rows without repetition, and for each row where it is among them."""
    found, where = np.unique(rows, axis=0, return_inverse=True)
    return found, where.ravel()


def score_products(customers: Floats, products: Floats, bias: Floats) -> Floats:
    """Customers times products plus bias. Products that are alike score exactly alike, whatever the order of adding."""
    unlike, where = distinct(np.column_stack([products, bias]).astype(np.float64))
    scores: Floats = customers.astype(np.float64) @ unlike[:, :-1].T + unlike[:, -1]
    return scores[:, where]


def ranks(scores: Floats, rows: Ints, targets: Ints) -> tuple[Ints, Ints]:
    """For each query how many products score strictly better than its target, and how many as much, itself included.

    A target of -1 was not to be had: every product is better.
    """
    better = np.full(len(rows), scores.shape[1], np.int32)
    equal = np.ones(len(rows), np.int32)
    known = np.flatnonzero(targets >= 0)
    for start in range(0, len(known), 4096):
        block = known[start : start + 4096]
        found = scores[rows[block]]
        own = found[np.arange(len(block)), targets[block]][:, None]
        better[block] = (found > own).sum(1)
        equal[block] = (found == own).sum(1)
    return better, equal


def metrics(better: Ints, equal: Ints) -> dict[str, float]:
    """MRR, NDCG@10 and Hit@10: the means over the queries of what is expected where the order of equals is drawn."""
    places = np.arange(1, int((better + equal).max()) + 1)
    gains = {
        "MRR": 1 / places,
        "NDCG@10": np.where(places <= 10, 1 / np.log2(places + 1), 0.0),
        "Hit@10": (places <= 10).astype(float),
    }
    result = {}
    for name, gain in gains.items():
        total = np.concatenate([[0.0], np.cumsum(gain)])
        result[name] = float(((total[better + equal] - total[better]) / equal).mean())
    return result


def measure(task: Task, scores: Floats) -> dict[str, float]:
    """The metrics of the scores of each kind of customer asked for. Raises `Diverged` where one is not finite."""
    if not np.isfinite(scores).all():
        raise Diverged
    return metrics(*ranks(scores, task.rows, task.targets))


def popularity(task: Task) -> Floats:
    """Everybody is given what sold most."""
    counts = np.bincount(task.pairs[:, 1], minlength=task.products.shape[0]).astype(float)
    return np.broadcast_to(counts, (task.asked.shape[0], len(counts)))


# Tuning


@dataclass
class Trial:
    """One setting on the inner folds: its MRR at each measured epoch."""

    setting: Setting
    curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """The epoch of the best MRR; the earliest of equals. 0 where nothing was measured."""
        return max(self.curve, key=lambda point: point[1], default=(0, 0.0))[0]

    @property
    def score(self) -> float:
        """The best MRR; 0 where nothing was measured."""
        return max((score for _, score in self.curve), default=0.0)


def search(task: Task, train: Train, settings: Sequence[Setting], say: Callable[[str], None]) -> list[Trial]:
    """Trains each setting up to setting["most"] epochs, measured every setting["every"], until it gets no better."""
    trials = []
    for number, setting in enumerate(settings, 1):
        trial = Trial(setting)
        began = time.perf_counter()

        def watch(epoch: int, scores: Callable[[], Floats], trial: Trial = trial) -> bool:
            if epoch % trial.setting["every"] == 0:
                trial.curve.append((epoch, measure(task, scores())["MRR"]))
            since = sum(at > trial.epochs for at, _ in trial.curve)
            return since < PATIENCE and epoch < trial.setting["most"]

        note = ""
        try:
            train(task, setting, watch)
        except Diverged:
            note = ", then diverged"
        trial.seconds = time.perf_counter() - began
        trials.append(trial)
        say(
            f"  {number:2}/{len(settings)}  inner MRR {trial.score:.4f} at epoch {trial.epochs:3} of "
            f"{trial.curve[-1][0] if trial.curve else 0:3}{note}  {trial.seconds:5.1f} s  {told(setting)}"
        )
    return trials


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial of the best inner MRR; the first of equals. Raises `InputError` where all diverged."""
    best = max(trials, key=lambda trial: trial.score)
    if not best.curve:
        raise InputError("no setting could be trained to its first measurement; the attributes may be too large")
    return best


def final_scores(task: Task, train: Train, setting: Setting, epochs: int) -> Floats:
    """The scores after so many epochs on all of the task."""
    kept: list[Floats] = []

    def watch(epoch: int, scores: Callable[[], Floats]) -> bool:
        if epoch == epochs:
            kept.append(scores())
        return epoch < epochs

    train(task, {**setting, "most": epochs}, watch)
    if not np.isfinite(kept[0]).all():
        raise Diverged
    return kept[0]


def told(setting: Setting) -> str:
    """The setting in a line, without how it is measured."""
    return " ".join(f"{name}={value}" for name, value in setting.items() if name not in {"every", "most"})


# The peers


def lightfm_settings(task: Task) -> list[Setting]:
    """WARP crossed: sizes, rates, penalties, identities of products or none; BPR and logistic at one size."""
    grid: list[Setting] = [
        {"loss": "warp", "size": size, "rate": rate, "penalty": penalty, "identity": identity}
        for identity in (True, False)
        for size in (16, 32, 64)
        for rate in (0.01, 0.05)
        for penalty in (0.0, 1e-5, 1e-4)
    ]
    grid += [
        {"loss": loss, "size": 32, "rate": rate, "penalty": 0.0, "identity": True}
        for loss in ("bpr", "logistic")
        for rate in (0.01, 0.05)
    ]
    return [{**setting, "every": 2, "most": 40} for setting in grid]


def train_lightfm(task: Task, setting: Setting, watch: Watch) -> None:
    """LightFM on attributes, each row scaled to a sum of 1 as its own `Dataset` does."""
    from lightfm import LightFM  # type: ignore[import-not-found]

    model = LightFM(
        no_components=setting["size"],
        loss=setting["loss"],
        learning_rate=setting["rate"],
        item_alpha=setting["penalty"],
        user_alpha=setting["penalty"],
        random_state=SEED,
    )
    customers, asked = (_sum_to_one(matrix) for matrix in (task.customers, task.asked))
    products = _sum_to_one(_with_identity(task.products) if setting["identity"] else task.products)
    bought = sparse.coo_matrix(
        (np.ones(len(task.pairs), np.float32), (task.pairs[:, 0], task.pairs[:, 1])),
        shape=(customers.shape[0], products.shape[0]),
    )

    def scores() -> Floats:
        bias = products @ model.item_biases.astype(np.float64)
        return score_products(asked @ model.user_embeddings, products @ model.item_embeddings, bias)

    epoch, more = 0, True
    while more:
        epoch += 1
        try:
            model.fit_partial(bought, user_features=customers, item_features=products, epochs=1, num_threads=1)
        except ValueError as error:
            if "finite" in str(error) or "NaN" in str(error):
                raise Diverged from None
            raise
        more = watch(epoch, scores)


def _with_identity(matrix: Any) -> Any:
    return sparse.hstack([sparse.identity(matrix.shape[0], np.float32), matrix], format="csr")


def _sum_to_one(matrix: Any) -> Any:
    total = np.asarray(matrix.sum(1)).ravel()
    scaled = sparse.diags(1 / np.where(total > 0, total, 1)) @ matrix
    return sparse.csr_matrix(scaled, dtype=np.float32)


def rectools_settings(task: Task) -> list[Setting]:
    """DSSM as RecTools feeds it, and fed one purchase a row without the customer's other purchases.

    RecTools' user net sees what the customer bought while it trains, the wanted product included, and nothing where
    only attributes are known. "purchases": False hides them in training too.
    """
    customers = task.customers.shape[0]
    # RecTools draws one purchase per customer and epoch.
    every = max(1, len(task.pairs) // (4 * customers))
    grid: list[Setting] = [
        {
            "purchases": True,
            "size": 128,
            "rate": rate,
            "margin": 0.4,
            "identity": True,
            "every": every,
            "most": 16 * every,
        }
        for rate in (0.001, 0.01)
    ]
    blind = [
        {"size": size, "rate": rate, "margin": margin, "identity": True}
        for size in (32, 128)
        for rate in (0.001, 0.01)
        for margin in (0.4, 1.0)
    ]
    blind += [{"size": 128, "rate": 0.001, "margin": 0.4, "identity": False}]
    return grid + [{"purchases": False, **setting, "every": 1, "most": 30} for setting in blind]


def train_rectools(task: Task, setting: Setting, watch: Watch) -> None:
    """RecTools' DSSM through its `DSSMModel`; those asked for are customers with attributes and no purchases."""
    import logging
    import warnings

    import pandas as pd
    import torch
    from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ProgressBar  # type: ignore[import-not-found]
    from rectools import Columns  # type: ignore[import-not-found]
    from rectools.dataset import Dataset, IdMap, Interactions, SparseFeatures  # type: ignore[import-not-found]
    from rectools.dataset.torch_datasets import (  # type: ignore[import-not-found]
        DSSMItemDataset,
        DSSMTrainDataset,
        DSSMTrainDatasetBase,
        DSSMUserDataset,
    )
    from rectools.models import DSSMModel  # type: ignore[import-not-found]
    from rectools.models.nn.dssm import DSSM  # type: ignore[import-not-found]
    from torch.utils.data import DataLoader

    class Purchases(DSSMTrainDatasetBase):  # type: ignore[misc]
        """One row per purchase; the user net is shown attributes and no purchases. The negative is any product."""

        def __init__(self, users: Any, items: Any, bought: Any) -> None:
            self.users, self.items = (torch.from_numpy(side.toarray()) for side in (users, items))
            self.rows, self.columns = (torch.from_numpy(side.astype(np.int64)) for side in bought.nonzero())
            self.nothing = torch.zeros(1, bought.shape[1])

        @classmethod
        def from_dataset(cls, dataset: Any) -> Purchases:
            users, items = dataset.get_hot_user_features(), dataset.get_hot_item_features()
            return cls(users.get_sparse(), items.get_sparse(), dataset.get_user_item_matrix())

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, row: int) -> Any:
            return self.__getitems__([row])[0]

        def __getitems__(self, rows: list[int]) -> list[Any]:
            negative = torch.randint(len(self.items), (len(rows),))
            user, positive = self.users[self.rows[rows]], self.items[self.columns[rows]]
            nothing = self.nothing.expand(len(rows), -1)
            return list(zip(user, nothing, positive, self.items[negative], strict=True))

    products = _with_identity(task.products) if setting["identity"] else task.products
    nobody_bought = sparse.csr_matrix((task.asked.shape[0], products.shape[0]), dtype=np.float32)

    def scores(net: Any) -> Floats:
        customer = net.inference_users(DataLoader(DSSMUserDataset(task.asked, nobody_bought), batch_size=512))
        product = net.inference_items(DataLoader(DSSMItemDataset(products), batch_size=512)).astype(np.float64)
        # The nearest first, as RecTools ranks: |c - p|² less |c|², which is the same for all products.
        net.train()
        return score_products(2 * customer, product, -(product**2).sum(1))

    class Watched(Callback):  # type: ignore[misc]
        """Measures after each epoch."""

        def __deepcopy__(self, memo: object) -> Watched:
            return self  # DSSMModel copies its trainer; the measurements stay here

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if not watch(trainer.current_epoch + 1, lambda: scores(pl_module)):
                trainer.should_stop = True

    class Quiet(ProgressBar):  # type: ignore[misc]
        """No bar."""

        def disable(self) -> None:
            """There is nothing to switch off."""

    np.random.seed(SEED)  # noqa: NPY002  what RecTools draws with
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    customers = task.customers.shape[0]
    frame = pd.DataFrame(task.pairs, columns=[Columns.User, Columns.Item])
    frame[Columns.Weight], frame[Columns.Datetime] = 1.0, pd.Timestamp("2000-01-01")
    dataset = Dataset(
        IdMap.from_values(np.arange(customers)),
        IdMap.from_values(np.arange(products.shape[0])),
        Interactions(frame),
        SparseFeatures.from_iterables(task.customers, [("attribute", at) for at in range(task.customers.shape[1])]),
        SparseFeatures.from_iterables(products, [("attribute", at) for at in range(products.shape[1])]),
    )
    net = DSSM(
        n_factors_user=setting["size"],
        n_factors_item=setting["size"],
        dim_input_user=task.customers.shape[1],
        dim_input_item=products.shape[1],
        dim_interactions=products.shape[0],
        lr=setting["rate"],
        triplet_loss_margin=setting["margin"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logging
        DSSMModel(
            train_dataset_type=DSSMTrainDataset if setting["purchases"] else Purchases,
            model=net,
            max_epochs=setting["most"],
            batch_size=128 if setting["purchases"] else 256,
            trainer_accelerator="cpu",
            callbacks=[Watched(), Quiet(), ModelCheckpoint(save_top_k=0)],
            loggers=False,
        ).fit(dataset)


PEERS: dict[str, tuple[Callable[[Task], list[Setting]], Train]] = {
    "lightfm": (lightfm_settings, train_lightfm),
    "rectools": (rectools_settings, train_rectools),
}


# The command


def run(peer: str, folder: Path, say: Callable[[str], None] = print) -> Path:
    """Tunes on the inner folds, trains on all training customers, ranks the queries; the file that was written."""
    split = read_split(folder)
    make_settings, train = PEERS[peer]
    began = time.perf_counter()
    inner = inner_task(split)
    settings = make_settings(inner)
    say(
        f"{folder}: {len(split.train):,} training purchases, {len(split.queries):,} queries; "
        f"{len(settings)} settings of {peer} on the inner folds"
    )
    say(f"  popularity  inner MRR {measure(inner, popularity(inner))['MRR']:.4f}")
    trials = search(inner, train, settings, say)
    best = choose(trials)
    task = outer_task(split)
    try:
        better, equal = ranks(final_scores(task, train, best.setting, best.epochs), task.rows, task.targets)
    except Diverged:
        raise InputError(f"{folder}: {peer} diverged on all training customers with {told(best.setting)}") from None
    seconds = time.perf_counter() - began
    record = {
        "peer": peer,
        "chosen": {**best.setting, "epochs": best.epochs, "inner_mrr": best.score},
        "tried": [
            {**trial.setting, "epochs": trial.epochs, "inner_mrr": trial.score, "curve": trial.curve}
            | {"seconds": round(trial.seconds, 1)}
            for trial in trials
        ],
        "seed": SEED,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES[peer]}},
        "seconds": round(seconds, 1),
    }
    path = folder / f"peer-{peer}.npz"
    part = folder / f".peer-{peer}.part.npz"
    np.savez(part, better=better, equal=equal, settings=np.array(json.dumps(record)))
    part.replace(path)
    say(f"{'':12}{'MRR':>8}{'NDCG@10':>9}{'Hit@10':>8}")
    for name, found in (("popularity", measure(task, popularity(task))), (peer, metrics(better, equal))):
        say(f"{name:12}{found['MRR']:8.4f}{found['NDCG@10']:9.4f}{found['Hit@10']:8.4f}")
    say(f"Chosen: {told(best.setting)} epochs={best.epochs}; {seconds:.0f} s in all")
    say(f"Written to {path}")
    return path


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"


def at_home(peer: str, arguments: Sequence[str]) -> None:
    """Returns where the peer can be imported; elsewhere starts this script again in the peer's environment.

    The environment is made where it is missing, and brought up to date where its list of packages has changed.
    """
    if importlib.util.find_spec(MODULES[peer]) is not None and sparse is not None:
        return
    home = ROOT / ".venv-peers" / peer
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted, done = Path(__file__).with_name(f"peers-{peer}.txt"), home / "installed.txt"
    if Path(sys.prefix).resolve() == home.resolve():
        raise InputError(
            f"{home}: {MODULES[peer]} is not in it although it was installed; remove the folder, run again"
        )
    if not done.is_file() or done.read_bytes() != wanted.read_bytes():
        print(f"{MODULES[peer]} is not installed here: installing {wanted.name} into {home}", flush=True)
        home.parent.mkdir(exist_ok=True)
        (home.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        try:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        except subprocess.CalledProcessError as error:
            raise InputError(f"{home}: could not be installed (exit status {error.returncode})") from None
        done.write_bytes(wanted.read_bytes())
    else:
        print(f"{MODULES[peer]} is not installed here: going on in {home}", flush=True)
    os.execv(python, [str(python), __file__, peer, *arguments])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the peer on each folder. A mistake in the input is one sentence and exit status 2."""
    parser = _Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=list(PEERS), help="which recommender")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a folder with split.npz")
    options = parser.parse_args(arguments)
    try:
        for folder in options.folders:
            if not (folder / "split.npz").is_file():  # before minutes of installing
                raise InputError(f"{folder / 'split.npz'}: there is no such file; FOLDER is a folder with a split.npz")
        at_home(options.peer, [str(folder) for folder in options.folders])
        for folder in options.folders:
            run(options.peer, folder, lambda line: print(line, flush=True))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
