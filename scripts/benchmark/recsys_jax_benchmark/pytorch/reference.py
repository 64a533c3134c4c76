"""The system as it is commonly written in PyTorch: what recsys_jax is compared with. It knows the mall's data alone.

Nothing here comes from recsys_jax, so that agreement between the two is worth something.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Rows = Sequence[Mapping[str, Any]]
Features = dict[str, Tensor]

SKIN_TYPES = {"dry": 0, "oily": 1, "combination": 2, "sensitive": 3, "normal": 4, "mature": 3, "unknown": 4}
SKIN_CONCERNS = {"moisture": 0, "wrinkle": 1, "gift": 2, "repurchase": 3, "calming": 4, "texture": 5}
GENDERS = {"F": 0, "M": 1}
CATEGORIES = {97: 0, 98: 1, 99: 2, 101: 3, 103: 4}


class TwoTower(nn.Module):
    """Customer tower and product tower."""

    def __init__(
        self, num_brands: int, embed_dim: int = 16, hidden_dim: int = 64, output_dim: int = 32, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.skin_type_emb = nn.Embedding(5, embed_dim)
        self.skin_concern_emb = nn.Embedding(6, embed_dim)
        self.gender_emb = nn.Embedding(2, embed_dim)
        self.category_emb = nn.Embedding(5, embed_dim)
        self.brand_emb = nn.Embedding(num_brands, embed_dim)

        def mlp(inputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, hidden_dim),
                nn.ReLU(),
                nn.BatchNorm1d(hidden_dim),
                nn.Dropout(dropout),
                nn.Linear(hidden_dim, output_dim),
            )

        self.customer_mlp = mlp(3 * embed_dim + 1)
        self.product_mlp = mlp(2 * embed_dim + 1)

    def encode_customer(self, customer: Features) -> Tensor:
        """Unit vectors (n, output_dim) of customers."""
        parts = [
            self.skin_type_emb(customer["skin_type"]),
            self.skin_concern_emb(customer["skin_concern"]),
            self.gender_emb(customer["gender"]),
            customer["age"].unsqueeze(1),
        ]
        return F.normalize(self.customer_mlp(torch.cat(parts, dim=1)), dim=1)

    def encode_product(self, product: Features) -> Tensor:
        """Unit vectors (n, output_dim) of products."""
        parts = [
            self.category_emb(product["category"]),
            self.brand_emb(product["brand"]),
            product["price"].unsqueeze(1),
        ]
        return F.normalize(self.product_mlp(torch.cat(parts, dim=1)), dim=1)


def read_rows(path: Path) -> Rows:
    """The customers or products in a JSON file."""
    rows: Rows = json.loads(path.read_text("utf-8"))
    return rows


def brands(products: Rows) -> dict[str, int]:
    """The brands, numbered in order of first appearance."""
    return {name: row for row, name in enumerate(dict.fromkeys(product["brand_name"] for product in products))}


def customer_features(customer: Mapping[str, Any]) -> Features:
    """One customer as scalars."""
    return {
        "skin_type": torch.tensor(SKIN_TYPES[customer["skin_type"]]),
        "skin_concern": torch.tensor(SKIN_CONCERNS[customer["skin_concern"]]),
        "gender": torch.tensor(GENDERS[customer["gender"]]),
        "age": torch.tensor(customer["age"] / 50.0, dtype=torch.float32),
    }


def product_features(product: Mapping[str, Any], brand_map: Mapping[str, int]) -> Features:
    """One product as scalars."""
    return {
        "category": torch.tensor(CATEGORIES[product["category"]]),
        "brand": torch.tensor(brand_map[product["brand_name"]]),
        "price": torch.tensor(min(product["price"] / 200000.0, 1.0), dtype=torch.float32),
    }


def stack(rows: Sequence[Features]) -> Features:
    """Many as vectors."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class Purchases(Dataset[dict[str, Features]]):
    """One item per purchase: the customer, the product, and a random product that was not bought."""

    def __init__(self, customers: Rows, products: Rows, brand_map: Mapping[str, int]) -> None:
        self.customers = customers
        self.products = {product["product_id"]: product for product in products}
        self.ids = list(self.products)
        self.brand_map = brand_map

    def __len__(self) -> int:
        return len(self.customers)

    def __getitem__(self, index: int) -> dict[str, Features]:
        customer = self.customers[index]
        other = bought = customer["purchased_product_id"]
        while other == bought:
            other = self.ids[int(torch.randint(len(self.ids), ()))]
        return {
            "customer": customer_features(customer),
            "positive": product_features(self.products[bought], self.brand_map),
            "negative": product_features(self.products[other], self.brand_map),
        }


def train(
    customers: Rows,
    products: Rows,
    *,
    epochs: int = 500,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> tuple[TwoTower, list[float]]:
    """The model, and the mean loss of each epoch; `progress` is called with both after each."""
    torch.manual_seed(seed)
    brand_map = brands(products)
    loader = DataLoader(Purchases(customers, products, brand_map), batch_size=32, shuffle=True)
    model = TwoTower(len(brand_map)).to(device)
    criterion = nn.TripletMarginLoss(margin=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    model.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in loader:
            customer, positive, negative = (
                {name: column.to(device) for name, column in batch[part].items()}
                for part in ("customer", "positive", "negative")
            )
            anchor = model.encode_customer(customer)
            loss = criterion(anchor, model.encode_product(positive), model.encode_product(negative))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(anchor)
        losses.append(total / len(customers))
        if progress is not None:
            progress(epoch, losses[-1])
    return model, losses


def save(model: TwoTower, brand_map: Mapping[str, int], path: Path | IO[bytes]) -> None:
    """Writes the checkpoint as such systems publish it."""
    torch.save({"model_state_dict": model.state_dict(), "brand_map": dict(brand_map)}, path)


def load(path: Path) -> tuple[TwoTower, dict[str, int]]:
    """The model of a checkpoint, ready to serve, and its brands."""
    checkpoint = torch.load(path, weights_only=True)
    weights, brand_map = checkpoint["model_state_dict"], checkpoint["brand_map"]
    hidden, inputs = weights["product_mlp.0.weight"].shape
    output = len(weights["product_mlp.4.weight"])
    model = TwoTower(len(brand_map), embed_dim=(inputs - 1) // 2, hidden_dim=hidden, output_dim=output)
    model.load_state_dict(weights)
    return model.eval(), brand_map


@torch.no_grad()
def encode(model: TwoTower, customers: Rows, products: Rows, brand_map: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Unit vectors of all customers and of all products, as when serving."""
    model.eval()
    catalogue = stack([product_features(product, brand_map) for product in products])
    return model.encode_customer(stack(list(map(customer_features, customers)))), model.encode_product(catalogue)


def evaluate(
    model: TwoTower, customers: Rows, products: Rows, brand_map: Mapping[str, int], *, ks: Sequence[int] = (3, 10)
) -> dict[str, float]:
    """Hit@k and Category Hit@k, asked for the purchases that were trained on.

    Products of equal attributes have equal scores and no order (here: scores within 1e-6); a hit is then counted by
    its probability under a random order.
    """
    anchors, catalogue = encode(model, customers, products, brand_map)
    scores = (anchors @ catalogue.T).double()
    row = {product["product_id"]: number for number, product in enumerate(products)}
    categories = [product["category"] for product in products]
    sums: dict[str, float] = defaultdict(float)
    for own, customer in zip(scores, customers, strict=True):
        target = row[customer["purchased_product_id"]]
        wanted = torch.tensor([category == categories[target] for category in categories])
        for k in ks:
            sums[f"hit@{k}"] += _chance(own, own[target], torch.arange(len(own)) == target, k)
            sums[f"category_hit@{k}"] += _chance(own, own[wanted].max(), wanted, k)
    return {name: total / len(customers) for name, total in sums.items()}


def _chance(scores: Tensor, best: Tensor, wanted: Tensor, k: int) -> float:
    """The probability that one of the wanted products, the best of which scores `best`, is among the first k."""
    better = int((scores > best + 1e-6).sum())
    level = (scores - best).abs() <= 1e-6
    equal, good = int(level.sum()), int((level & wanted).sum())
    places = min(max(k - better, 0), equal)
    return 1.0 - math.comb(equal - good, places) / math.comb(equal, places)
