"""The peers: which settings of each are tried, and how one is trained; nothing of ours is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import sparse

from . import regression
from .task import THREADS, Diverged, Floats, Task, score_products

Setting = Mapping[str, Any]
# Called after each epoch with its number and what would give the scores; whether to go on.
Watch = Callable[[int, Callable[[], Floats]], bool]
Train = Callable[[Task, Setting, Watch], None]

SEED = 0


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
    bought = _bought(task)

    def scores() -> Floats:
        bias = products @ model.item_biases.astype(np.float64)
        return score_products(asked @ model.user_embeddings, products @ model.item_embeddings, bias)

    epoch, more = 0, True
    while more:
        epoch += 1
        try:
            model.fit_partial(bought, user_features=customers, item_features=products, epochs=1, num_threads=THREADS)
        except ValueError as error:
            if "finite" in str(error) or "NaN" in str(error):
                raise Diverged from None
            raise
        more = watch(epoch, scores)


def irspack_settings(task: Task) -> list[Setting]:
    """Sizes, weights of what was not bought, penalties of vectors and of what attributes make of them."""
    return [
        {"size": size, "weight": weight, "penalty": penalty, "of_attributes": of_attributes, "every": 4, "most": 32}
        for size in (16, 64)
        for weight in (0.03, 0.1, 1.0)
        for penalty in (0.003, 0.01)
        for of_attributes in (100.0, 1000.0, 10000.0)
    ]


def train_irspack(task: Task, setting: Setting, watch: Watch) -> None:
    """irspack's iALS with the attributes of both sides; who is asked is known by attributes alone."""
    from irspack import IALSRecommender  # type: ignore[import-not-found]
    from irspack.recommenders.ials import FeatureRidgeCholeskyError  # type: ignore[import-not-found]

    model = IALSRecommender(
        sparse.csr_matrix(_bought(task)),
        n_components=setting["size"],
        alpha0=setting["weight"],
        reg=setting["penalty"],
        user_features=task.customers,
        item_features=task.products,
        lambda_user_feature=setting["of_attributes"],
        lambda_item_feature=setting["of_attributes"],
        random_seed=SEED,
        n_threads=THREADS,
    )
    model.start_learning()
    epoch, more = 0, True
    while more:
        epoch += 1
        try:
            model.run_epoch()
        except FeatureRidgeCholeskyError:
            raise Diverged from None
        more = watch(epoch, lambda: model.get_score_cold_user_from_features(task.asked))


def _bought(task: Task) -> Any:
    shape = task.customers.shape[0], task.products.shape[0]
    return sparse.coo_matrix((np.ones(len(task.pairs), np.float32), tuple(task.pairs.T)), shape=shape)


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
    # RecTools draws one purchase per customer and epoch.
    every = max(1, len(task.pairs) // (4 * task.customers.shape[0]))
    shown = [{"purchases": True, "size": 128, "rate": rate, "margin": 0.4, "identity": True} for rate in (0.001, 0.01)]
    blind = [
        {"purchases": False, "size": size, "rate": rate, "margin": margin, "identity": True}
        for size in (32, 128)
        for rate in (0.001, 0.01)
        for margin in (0.4, 1.0)
    ]
    blind += [{"purchases": False, "size": 128, "rate": 0.001, "margin": 0.4, "identity": False}]
    return [
        *({**setting, "every": every, "most": 16 * every} for setting in shown),
        *({**setting, "every": 1, "most": 30} for setting in blind),
    ]


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
    torch.set_num_threads(THREADS)
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
    "irspack": (irspack_settings, train_irspack),
    "torch": (regression.settings, regression.train_torch),
    "sklearn": (regression.settings, regression.train_sklearn),
}
