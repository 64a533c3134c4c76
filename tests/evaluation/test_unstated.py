"""An attribute that few state: a fold in which no training customer does goes on without it, and says so."""

import json

import numpy as np
import pytest

from recsys_jax import DeepConfig, InputError, Recommender, fit, load_dataset, save_model
from recsys_jax.console.reports import write
from recsys_jax.data.splits import Fold, Split, combination_split
from recsys_jax.evaluation.baselines import baselines
from recsys_jax.evaluation.engine import MODEL, evaluate
from recsys_jax.evaluation.methods import recipe
from recsys_jax.evaluation.report import report
from recsys_jax.training.batches import prepare

pytestmark = pytest.mark.wild
TINY = DeepConfig(epochs=1, batch_size=4, hidden_dim=4, output_dim=4, embedding_dim=2)
FEATURE = """
[[customers.features]]
name = "hair"
kind = "{kind}"
values = "learned"
unknown = "{policy}"
missing = "{policy}"
"""


def shop(mall, kind, policy, stated=("u1",)):
    """The mall, and hair, of which only some customers say anything."""
    with (mall / "dataset.toml").open("a", encoding="utf-8") as file:
        file.write(FEATURE.format(kind=kind, policy=policy))
    customers = json.loads((mall / "customers.json").read_text("utf-8"))
    for row in customers:
        row["hair"] = "curly" if row["user_id"] in stated else None
    (mall / "customers.json").write_text(json.dumps(customers), encoding="utf-8")
    return load_dataset(mall)


def without(dataset, customer):
    """The purchases of all but one customer."""
    return dataset.purchases[:, 0] != dataset.customer_ids.index(customer)


@pytest.mark.parametrize(("kind", "policy"), [("categorical", "extra-row"), ("multi-categorical", "ignore")])
def test_a_fold_goes_on_without_it(mall, tmp_path, kind, policy):
    dataset = shop(mall, kind, policy)
    train = without(dataset, "u1")
    split = Split("cross-validation", "one fold", (Fold(train, ~train),))
    others = baselines(dataset)
    methods = {MODEL: recipe(TINY), **{name: others[name] for name in ("random", "popularity", "naive Bayes")}}
    found = evaluate(dataset, split, methods, (3,), control=False)
    note = "without hair, which no training customer of the fold states"
    assert found.methods[MODEL].notes == (note,)
    write(report(found, count=10), dataset, tmp_path, split.name, 3, model="", derived=None)
    assert f"* note: {note}" in (tmp_path / split.name / "report.md").read_text("utf-8")
    assert np.isfinite(found.values["naive Bayes"]["mrr"]).all()
    assert "hair" in prepare(dataset, TINY, without(dataset, "u2")).customer_space.names
    # Such a model can be kept, and does not take the attribute.
    save_model(fit(dataset, TINY, train=train), tmp_path / "run")
    rec = Recommender.load(tmp_path / "run")
    stated = {"age": 30, "gender": "F", "skin_type": "dry", "skin_concern": "gift"}
    assert len(rec.recommend(**stated)) == 3
    with pytest.raises(InputError, match="found the attribute 'hair'"):
        rec.recommend(**stated, hair="curly")


def test_new_combinations_are_made_without_it(mall):
    dataset = shop(mall, "categorical", "extra-row", stated=("u11",))
    assert combination_split(dataset, 2).folds


def test_a_training_on_everything_is_refused_where_no_buyer_states_it(mall):
    """The model would not know an attribute that dataset.toml names."""
    dataset = shop(mall, "categorical", "extra-row", stated=())
    with pytest.raises(InputError, match="'hair' holds no value to learn from in the 10 rows that are learned from"):
        fit(dataset, TINY)
