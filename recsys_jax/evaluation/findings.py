"""What figures say and don't say, in sentences; from the figures alone."""

from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import CONTROL
from recsys_jax.evaluation.report import Report

__all__ = ["FEW", "verdicts"]

FEW = 100
"""With fewer customers, an interval of a bootstrap is itself a rough guess."""


def verdicts(found: Report, *, derived: bool = False) -> list[str]:
    """The sentences to read beside the table; `derived` says that attributes come from the purchases asked for."""
    out = []
    if found.evaluation.split == "in-sample":
        out.append("In-sample: asked for what it was trained on. This is memory, not foresight.")
    if derived or found.leak_free is not None:
        out.append(_leak(found))
    out += _rivals(found)
    if CONTROL in found.differences:
        out += _control(found)
    out += _categories(found)
    if found.inverse is not None and found.inverse.low > 0:
        out.append(
            f"Inverse popularity beats popularity: MRR {_signed(found.inverse)}. The held-out purchase is missing from "
            f"its product's count, and counts this flat tell little else. Beating popularity is no merit here; look "
            f"at AUC, which compares products with equal counts."
        )
    if found.customers < FEW:
        out.append(f"Only {found.customers} customers were asked for: intervals from so few are themselves rough.")
    return out


def _shown(metric: str) -> str:
    """A metric's name as people write it.

    >>> _shown("ndcg@10"), _shown("category_hit@3"), _shown("mrr")
    ('NDCG@10', 'Category Hit@3', 'MRR')
    """
    name, at, k = metric.partition("@")
    words = {"ndcg": "NDCG", "mrr": "MRR", "auc": "AUC", "hit": "Hit", "category_hit": "Category Hit"}
    return words.get(name, name) + at + k


def _plain(found: Interval) -> str:
    return f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f})"


def _signed(found: Interval) -> str:
    """A difference with its interval.

    >>> _signed(Interval(0.0012, -0.0003, 0.0027, 50))
    '+0.0012 (-0.0003 to +0.0027)'
    """
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _metrics(found: Report) -> list[str]:
    """Those that the model is judged by: MRR and NDCG of the longest list."""
    return ["mrr", f"ndcg@{max(found.evaluation.ks)}"]


def _rivals(found: Report) -> list[str]:
    judged = _metrics(found)
    named = " and ".join(map(_shown, judged))
    rivals = [method for method in found.differences if method not in (CONTROL, "ensemble")]
    out = []
    for method in rivals:
        short = {
            metric: found.differences[method][metric]
            for metric in judged
            if found.differences[method][metric].reading != "better"
        }
        if short:
            said = "; ".join(f"{_shown(metric)} {_signed(one)}, {one.reading}" for metric, one in short.items())
            out.append(f"The model does not beat {method}: {said}.")
    if rivals and not out:
        out.append(f"The model beats all {len(rivals)} baselines in {named}.")
    return out


def _control(found: Report) -> list[str]:
    out = []
    # The attributes count where they help in either: a list of ten sees less than the rank.
    control = {metric: found.differences[CONTROL][metric] for metric in _metrics(found)}
    if all(one.reading != "better" for one in control.values()):
        said = "; ".join(f"{_shown(metric)} {_signed(one)}, {one.reading}" for metric, one in control.items())
        out.append(
            f"No signal from attributes: with those of other customers it does as well; own minus others': {said}."
        )
    auc = found.means["model"]["auc"]
    if auc.low <= 0.5 <= auc.high:
        out.append(
            f"AUC is at chance: {_plain(auc)} includes 0.5. Among products bought equally often the model does not "
            f"find the right one."
        )
    elif auc.high < 0.5:
        out.append(f"AUC is below chance: {_plain(auc)}. Among products bought equally often the model errs.")
    return out


def _categories(found: Report) -> list[str]:
    out = []
    for metric, one in found.differences.get("random", {}).items():
        if metric.startswith("category_hit") and one.reading != "better":
            where = "at" if one.reading == "inside the noise" else "below"
            model, chance = found.means["model"][metric], found.means["random"][metric].mean
            out.append(f"{_shown(metric)} is {where} chance: {_plain(model)}, random {chance:.4f}.")
    return out


def _leak(found: Report) -> str:
    said = (
        "Personas were derived from the review of the very purchase that is asked for: the customers' attributes have "
        "seen a part of the answer."
    )
    if found.leak_free is None:
        return said
    leaky, honest = found.means["model"]["mrr"], found.leak_free.means["model"]["mrr"]
    return (
        f"{said} MRR of the model with this leak {_plain(leaky)}; without it, with personas drawn from the training "
        f"customers' shares, {_plain(honest)}. A new customer is like the second."
    )
