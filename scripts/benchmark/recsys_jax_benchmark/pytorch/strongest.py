"""The training of `reference.train`, as fast as PyTorch runs it: the strong rival in the benchmark.

Ratios in the comments: how much longer 500 epochs of the mall take on one thread without the trick, compiling aside.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from recsys_jax_benchmark.pytorch.reference import Rows, TwoTower, brands, customer_features, product_features, stack

BATCH = 32
RATE, BETA1, BETA2, ADAM_EPS = 1e-3, 0.9, 0.999, 1e-8
MOMENTUM, NORM_EPS = 0.1, 1e-5
KEPT = 0.8  # of the hidden units, in dropout


class State(NamedTuple):
    """All that a step changes, as few tensors: the compiled loop makes a handle for each, at each turn (1.2x)."""

    params: Tensor  # all in one vector, in the model's order
    mean: Tensor  # of the gradients, for Adam
    square: Tensor
    stats: Tensor  # (2, 2, hidden): for customers and products, the running mean and variance


class Strongest:
    """Encodes the rows once. What is `compiled` is so in the first `train`; the later ones only train.

    epoch: all of an epoch, its loop and Adam too; step: a step's loss and its gradient, as people compile.
    """

    def __init__(
        self, customers: Rows, products: Rows, *, device: str = "cpu", compiled: Literal["epoch", "step"] | None
    ) -> None:
        self._compiled, self._device = compiled, torch.device(device)
        brand_map = brands(products)
        row = {product["product_id"]: number for number, product in enumerate(products)}
        people = stack([customer_features(customer) for customer in customers])
        goods = stack([product_features(product, brand_map) for product in products])
        self._people = torch.stack([people[name] for name in ("skin_type", "skin_concern", "gender")]).to(device)
        self._ages = people["age"].to(device)
        self._goods = torch.stack([goods["category"], goods["brand"]]).to(device)
        self._prices = goods["price"].to(device)
        self._bought = torch.tensor([row[customer["purchased_product_id"]] for customer in customers], device=device)

        self._brands, self._count, self._batches = len(brand_map), len(customers), -(-len(customers) // BATCH)
        self._shapes = {name: param.shape for name, param in TwoTower(self._brands).named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        hidden, total = self._shapes["product_mlp.2.weight"].numel(), sum(self._sizes)
        # What an epoch reads and changes stays where it is: a CUDA graph knows tensors by their addresses.
        self._state = State(*(torch.zeros(shape, device=device) for shape in [(total,)] * 3 + [(2, 2, hidden)]))
        self._rows = torch.zeros(3, self._count, dtype=torch.int64, device=device)  # customer, bought, other product
        self._rates = torch.zeros(self._batches, 2, device=device)  # Adam's corrections of the bias
        self._noise = torch.zeros(3 * self._count * hidden // 2, dtype=torch.int64, device=device)
        self._bits = self._noise.view(torch.int32).view(3, self._count, hidden)
        self._epoch: Callable[[], Tensor] | None = None
        self._row_loss = torch.compile(self._eager_loss, dynamic=False) if compiled == "step" else self._eager_loss

    def train(self, *, epochs: int = 500, seed: int = 0) -> tuple[TwoTower, list[float]]:
        """The model, and the mean loss of each epoch."""
        torch.manual_seed(seed)
        model = TwoTower(self._brands).to(self._device)
        run = self._train_compiled if self._compiled == "epoch" else self._train_eager
        losses: list[float] = run(model, epochs).tolist()
        return model, losses

    def _draws(self, epochs: int) -> Iterator[int]:
        """The epochs' numbers, each once its random numbers are drawn."""
        order = torch.rand(epochs, self._count, device=self._device).argsort(dim=1)
        bought = self._bought[order]
        other = torch.randint(len(self._prices) - 1, bought.shape, device=self._device)
        rows = torch.stack([order, bought, other + (other >= bought)], dim=1)
        for epoch in range(epochs):
            self._rows.copy_(rows[epoch])
            # Bits for two units at a time: bernoulli_ draws for one (1.3x), as does dropout in a compiled graph (1.4x).
            self._noise.random_(-(2**63), None)
            yield epoch

    def _mask(self, bits: Tensor) -> Tensor:
        """Dropout, as what to multiply with."""
        return (bits < round(KEPT * 2**32) - 2**31) / KEPT

    # One call per epoch.

    @torch.no_grad()
    def _train_compiled(self, model: TwoTower, epochs: int) -> Tensor:
        if self._epoch is None:
            self._epoch = self._captured() if self._device.type == "cuda" else self._looped()
        for part in self._state:
            part.zero_()
        self._state.params.copy_(parameters_to_vector(model.parameters()))
        self._state.stats[:, 1] = 1.0
        steps = torch.arange(1, epochs * self._batches + 1, dtype=torch.float64)
        rates = torch.stack([RATE / (1 - BETA1**steps), (1 - BETA2**steps).rsqrt()], dim=1)
        rates = rates.view(epochs, self._batches, 2).float().to(self._device)
        losses = torch.zeros(epochs, device=self._device)
        for epoch in self._draws(epochs):
            self._rates.copy_(rates[epoch])
            losses[epoch] = self._epoch()
        vector_to_parameters(self._state.params.clone(), model.parameters())
        customer, product = self._state.stats
        values = *customer, torch.tensor(len(steps)), *product, torch.tensor(2 * len(steps))
        for buffer, value in zip(model.buffers(), values, strict=True):
            buffer.copy_(value)
        return losses

    def _looped(self) -> Callable[[], Tensor]:
        # A loop in the graph: Python would loop over graphs of one step (1.8x). Unrolled, the epoch's nine steps are
        # 5 to 8 % faster but compile for over a minute (2.6x). Without the C++ wrapper, Python starts kernels (1.6x).
        def epoch() -> Tensor:
            whole, total, state = self._count // BATCH, torch.zeros(()), self._state
            if whole:
                rows = self._rows[:, : whole * BATCH].view(3, whole, BATCH).movedim(1, 0)
                bits = self._bits[:, : whole * BATCH].view(3, whole, BATCH, -1).movedim(1, 0)

                def body(batch: Tensor, total: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
                    place = int(batch)
                    state, loss = self._step(state, rows[place], bits[place], self._rates[place])
                    return batch + 1, total + loss, state

                start = torch.zeros((), dtype=torch.int64), total, state
                _, total, state = while_loop(lambda batch, *_: batch < whole, body, start)  # type: ignore[no-untyped-call]
            return self._rest(whole, self._step, state, total)

        return torch.compile(epoch, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})

    def _captured(self) -> Callable[[], Tensor]:
        # A loop in the graph would wait for the device at each turn: here, a CUDA graph replays the epoch's steps.
        step = torch.compile(self._step, fullgraph=True, dynamic=False)

        def epoch() -> Tensor:
            return self._rest(0, step, self._state, torch.zeros((), device=self._device))

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, and makes what is made once
                epoch()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = epoch()

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay

    def _rest(self, first: int, step: Callable[..., tuple[State, Tensor]], state: State, total: Tensor) -> Tensor:
        """Trains on the batches from `first` on; the epoch's mean loss, where those before had the sum `total`."""
        for batch in range(first, self._batches):
            part = slice(batch * BATCH, (batch + 1) * BATCH)
            state, loss = step(state, self._rows[:, part], self._bits[:, part], self._rates[batch])
            total = total + loss
        for old, new in zip(self._state, state, strict=True):
            old.copy_(new)
        return total / self._count

    def _step(self, state: State, rows: Tensor, bits: Tensor, rates: Tensor) -> tuple[State, Tensor]:
        """The state after a step of Adam, and the sum of the rows' losses before it."""
        function = torch.func.grad_and_value(self._loss, has_aux=True)
        gradient, (loss, (customer, product)) = function(state.params, rows, self._mask(bits))
        mean = state.mean.lerp(gradient, 1 - BETA1)
        square = state.square.lerp(gradient * gradient, 1 - BETA2)
        params = state.params - rates[0] * mean / (square.sqrt() * rates[1] + ADAM_EPS)
        stats = state.stats.lerp(torch.stack([customer[:, 0], product[:, 0]]), MOMENTUM)
        stats = torch.stack([stats[0], stats[1].lerp(product[:, 1], MOMENTUM)])
        return State(params, mean, square, stats), loss * rows.shape[1]

    def _loss(self, params: Tensor, rows: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The mean loss; for either tower (2, passes, hidden): the mean and variance of its units in each pass."""
        parts = zip(self._shapes.items(), torch.split(params, self._sizes), strict=True)
        weights = {name: part.view(shape) for (name, shape), part in parts}

        def tower(name: str, tables: Sequence[str], ids: Tensor, number: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            hidden, norm, out = ((weights[f"{name}.{n}.weight"], weights[f"{name}.{n}.bias"]) for n in (0, 2, 4))
            inputs = [weights[f"{table}_emb.weight"][row] for table, row in zip(tables, ids, strict=True)]
            units = F.linear(torch.cat([*inputs, number.unsqueeze(-1)], dim=-1), *hidden).relu()
            variance, mean = torch.var_mean(units, dim=-2, correction=0, keepdim=True)
            units = (units - mean) * (variance + NORM_EPS).rsqrt() * norm[0] + norm[1]
            unbiased = variance * (units.shape[-2] / (units.shape[-2] - 1))
            return F.normalize(F.linear(units * mask, *out), dim=-1), torch.stack([mean, unbiased]).squeeze(-2)

        # The passes for bought and other products go side by side: the same numbers, by fewer kernels (1.1x).
        who, what = rows[:1], rows[1:]
        people, ages, goods, prices = self._people[:, who], self._ages[who], self._goods[:, what], self._prices[what]
        columns = "skin_type", "skin_concern", "gender"
        anchor, customer = tower("customer_mlp", columns, people, ages, mask[:1])
        points, product = tower("product_mlp", ("category", "brand"), goods, prices, mask[1:])
        return F.triplet_margin_loss(anchor[0], points[0], points[1], margin=1.0), (customer, product)

    # One call per step.

    def _train_eager(self, model: TwoTower, epochs: int) -> Tensor:
        # The parameters and their gradients are views of two vectors: the optimizer then has one tensor (1.1x).
        params = parameters_to_vector(model.parameters()).detach()
        params.grad = torch.zeros_like(params)
        vector_to_parameters(params, model.parameters())
        for param, gradient in zip(model.parameters(), torch.split(params.grad, self._sizes), strict=True):
            param.grad = gradient.view_as(param)
        optimizer = torch.optim.Adam([params], lr=RATE, fused=True)

        losses = torch.zeros(epochs, device=self._device)
        for epoch in self._draws(epochs):
            masks = torch.split(self._mask(self._bits), BATCH, dim=1)
            for rows, mask in zip(torch.split(self._rows, BATCH, dim=1), masks, strict=True):
                loss = self._row_loss(model, rows, mask)
                params.grad.zero_()
                torch.autograd.backward(loss)
                optimizer.step()
                losses[epoch] += loss.detach() * rows.shape[1]
        return losses / self._count

    def _eager_loss(self, model: TwoTower, rows: Tensor, mask: Tensor) -> Tensor:
        """The mean loss of the rows: customers, what they bought, and other products (3, n)."""

        def tower(mlp: nn.Sequential, inputs: list[Tensor], mask: Tensor) -> Tensor:
            units = mlp[0](torch.cat(inputs, dim=1)).relu()
            units = torch.cat([mlp[2](part) for part in units.chunk(len(mask))])
            return F.normalize(mlp[4](units * mask.flatten(0, 1)), dim=1)

        who, what = rows[0], rows[1:].flatten()
        skin_type, concern, gender = self._people[:, who]
        inputs = [model.skin_type_emb(skin_type), model.skin_concern_emb(concern), model.gender_emb(gender)]
        anchor = tower(model.customer_mlp, [*inputs, self._ages[who].unsqueeze(1)], mask[:1])
        category, brand = self._goods[:, what]
        inputs = [model.category_emb(category), model.brand_emb(brand), self._prices[what].unsqueeze(1)]
        near, far = tower(model.product_mlp, inputs, mask[1:]).chunk(2)
        return F.triplet_margin_loss(anchor, near, far, margin=1.0)
