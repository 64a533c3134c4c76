"""What figures say and don't say, in sentences; from the figures alone."""

from collections.abc import Collection, Mapping

from recsys_jax.config import RECIPES
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import CONTROL, ENSEMBLE, MODEL
from recsys_jax.evaluation.report import METRICS, Comparison, Report

FEW = 100  # with fewer customers, an interval of a bootstrap is itself a rough guess


WHO = {
    "in-sample": "In-sample, for the purchases that it was trained on",
    "new-products": "For products that nobody has bought yet",
    "time": "For later purchases",
    "new-combinations": "For combinations of attributes it has never seen",
}
"""What a split asks for; the others ask for customers never seen."""

NEVER_SEEN = "For customers it has never seen"


def bestsellers(methods: Collection[str]) -> tuple[str, str]:
    """The method that is a bestseller list, and what it is called; of new products, that of their category."""
    for name in ("popularity", "popularity by category"):
        if name in methods:
            return name, "a bestseller list"
    return "random", "chance"


def best_baseline(found: Report) -> str:
    """The baseline with the highest MRR."""
    names = [name for name in found.means if name not in (MODEL, ENSEMBLE, CONTROL, *RECIPES)]
    return max(names, key=lambda name: found.means[name]["mrr"].mean)


def headline(found: Report) -> str:
    """Whether the model is better than a bestseller list, by how much, and how sure that is.

    Where attributes were derived from the purchases asked for, it is of the figures without that leak.
    """
    found = found.leak_free or found
    yardstick, called = bestsellers(found.means)
    difference = found.differences[yardstick]["mrr"]
    how = f"the model is {difference.reading}" if difference.clear else "it is not sure that the model is better"
    said = (
        f"{WHO.get(found.evaluation.split, NEVER_SEEN)}, {how} than {called}: MRR {found.means[MODEL]['mrr'].mean:.4f} "
        f"against {found.means[yardstick]['mrr'].mean:.4f} ({_interval(difference)})."
    )
    return f"{said} {_remark_on(found)}".rstrip()


def better_recipe(found: Report, own: str, other: str) -> str:
    """Which of two recipes serves new customers better, and whether either beats a bestseller list; then the figures.

    `found` is of the recipe `own` as the model, beside a method named `other`, which is the other recipe; where there
    was a leak, what is said is of the figures without it.
    """
    found = found.leak_free or found
    methods = {own: MODEL, other: other}
    yardstick, called = bestsellers(found.means)
    mean = {name: found.means[method]["mrr"].mean for name, method in methods.items()}
    better, worse = sorted(methods, key=lambda name: -mean[name])
    against = found.difference(methods[better], methods[worse])
    beyond = {name: found.difference(method, yardstick) for name, method in methods.items()}
    beating = [name for name, one in beyond.items() if one.reading == "better"]
    who = f"only {beating[0]} beats" if len(beating) == 1 else "both beat" if beating else "neither beats"
    which = f"{better} is better than {worse}" if against.clear else "it is not sure which recipe is better"
    said = (
        f"For customers never seen, {which}, and {who} a bestseller list. {better.capitalize()} has MRR "
        f"{mean[better]:.4f} against {mean[worse]:.4f} of {worse} ({_interval(against)})."
    )
    for name, one in beyond.items():
        said += f" {name.capitalize()} {_beats(one, called)}."
    best = best_baseline(found)
    if best != yardstick:
        beside = (f"{name} is {found.difference(method, best).reading}" for name, method in methods.items())
        said += f" Beside the best baseline, {best} (MRR {found.means[best]['mrr'].mean:.4f}), {', '.join(beside)}."
    return f"{said} {_remark_on(found)}".rstrip()


def ranking(result: Comparison, split: str, recipes: Collection[str]) -> str:
    """Who is ahead, who may be as good, and whether the best recipe is better than a bestseller list."""
    methods = [row.method for row in result.rows]
    first, *rest = result.rows
    best = next((row for row in result.rows if row.method in recipes), None)
    level = [row.method for row in rest if row.reading() == "inside the noise"]
    mrr = _plain(first.means[METRICS[0]]) if best is first else f"{first.means[METRICS[0]].mean:.4f}"
    asked = WHO.get(split, NEVER_SEEN).replace("it has never", "never")
    said = f"{asked}, {first.method} is ahead of {len(rest)} others: MRR {mrr}."
    if level:
        more = f" and {len(level) - 1} more" if len(level) > 1 else ""
        said += f" Inside the noise of it: {level[0]}{more}."
    yardstick, called = bestsellers(methods)
    if best is not None and yardstick in methods:
        who = "It" if best is first else f"The best recipe, {best.method},"
        said += f" {who} {_beats(result.difference(best.method, yardstick), called)}."
    inverse = None
    if {"popularity", "inverse popularity"} <= set(methods):
        inverse = result.difference("inverse popularity", "popularity")
    return f"{said} {_remark(inverse, result.customers)}".rstrip()


def findings(found: Report, *, derived: bool = False) -> list[str]:
    """The sentences to read beside the table; `derived` says that attributes come from the purchases asked for."""
    out = []
    if found.evaluation.split == "in-sample":
        out.append("In-sample: asked for what it was trained on. This is memory, not foresight.")
    if derived or found.leak_free is not None:
        out.append(_leak(found))
    out += _rivals(found)
    if CONTROL in found.differences:
        out += _control(found)
    for metric, one in found.differences.get("random", {}).items():
        if metric.startswith("category_hit") and one.reading != "better":
            where = "at" if one.reading == "inside the noise" else "below"
            model, chance = found.means[MODEL][metric], found.means["random"][metric].mean
            out.append(f"{_shown(metric)} is {where} chance: {_plain(model)}, random {chance:.4f}.")
    if found.inverse is not None and found.inverse.low > 0:
        why = "What was bought most in training is bought less in what is asked for."
        if found.evaluation.flat:
            why = "The held-out purchase is missing from its product's count, and counts this flat tell little else."
        out.append(
            f"Inverse popularity beats popularity: MRR {_signed(found.inverse)}. {why} Beating popularity is no merit "
            f"here; look at AUC, which compares products with equal counts."
        )
    if found.customers < FEW:
        out.append(f"Only {found.customers} customers were asked for: intervals from so few are themselves rough.")
    return out


def _leak(found: Report) -> str:
    said = (
        "Personas were derived from the review of the very purchase that is asked for: the customers' attributes have "
        "seen a part of the answer."
    )
    if found.leak_free is None:
        return said
    leaky, honest = (_plain(one.means[MODEL]["mrr"]) for one in (found, found.leak_free))
    return (
        f"{said} MRR of the model with this leak {leaky}; without it, with personas drawn from the training customers' "
        f"shares, {honest}. A new customer is like the second."
    )


def _rivals(found: Report) -> list[str]:
    rivals = [method for method in found.differences if method not in (CONTROL, ENSEMBLE, *RECIPES)]
    short = {method: _not_better(found, method) for method in rivals}
    out = [f"The model does not beat {method}: {_each(metrics)}." for method, metrics in short.items() if metrics]
    if rivals and not out:
        out.append(f"The model beats all {len(rivals)} baselines in {' and '.join(map(_shown, _judged(found)))}.")
    return out


def _control(found: Report) -> list[str]:
    out = []
    if _no_signal(found):
        out.append(
            f"No clear signal from attributes: with those of other customers it does about as well; own minus others': "
            f"{_each(_not_better(found, CONTROL))}."
        )
    auc = found.means[MODEL]["auc"]
    if auc.low <= 0.5 <= auc.high:
        out.append(
            f"AUC is at chance: {_plain(auc)} includes 0.5. It is not sure that the model finds the right one among "
            f"products bought equally often."
        )
    elif auc.high < 0.5:
        out.append(f"AUC is below chance: {_plain(auc)}. Among products bought equally often the model errs.")
    return out


def _judged(found: Report) -> list[str]:
    """The metrics that the model is judged by: MRR and NDCG of the longest list."""
    return ["mrr", f"ndcg@{max(found.evaluation.ks)}"]


def _not_better(found: Report, method: str) -> dict[str, Interval]:
    """The differences to a method in those of these metrics by which the model is not better."""
    differences = {metric: found.differences[method][metric] for metric in _judged(found)}
    return {metric: one for metric, one in differences.items() if one.reading != "better"}


def _no_signal(found: Report) -> bool:
    """Whether the attributes help in neither metric: a list of ten sees less than the rank."""
    return CONTROL in found.differences and len(_not_better(found, CONTROL)) == len(_judged(found))


def _remark_on(found: Report) -> str:
    """The findings that qualify the headline, if there are any."""
    said = _remark(found.inverse, found.customers)
    if _no_signal(found):
        but = "But it is not sure that attributes help: with those of other customers it does about as well."
        said = f"{but} {said}".rstrip()
    return said


def _remark(inverse: Interval | None, customers: int) -> str:
    """On the yardstick, from the difference between inverse popularity and popularity; or on how few were asked."""
    if inverse is not None and inverse.low > 0:
        return "A bestseller list is a poor yardstick here: its inverse beats it."
    return f"Only {customers} customers were asked: this is rough." if customers < FEW else ""


def _beats(difference: Interval, called: str) -> str:
    how = {"better": "beats", "worse": "loses to"}.get(difference.reading, "is inside the noise of")
    return f"{how} {called} ({_interval(difference)})"


def _interval(difference: Interval) -> str:
    return f"{difference.mean:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f}"


def _plain(found: Interval) -> str:
    return f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f})"


def _signed(found: Interval) -> str:
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _each(differences: Mapping[str, Interval]) -> str:
    """By metric, the differences and what they say."""
    return "; ".join(f"{_shown(metric)} {_signed(one)}, {one.reading}" for metric, one in differences.items())


def _shown(metric: str) -> str:
    """A metric's name as people write it.

    >>> _shown("ndcg@10"), _shown("category_hit@3"), _shown("mrr")
    ('NDCG@10', 'Category Hit@3', 'MRR')
    """
    name, at, k = metric.partition("@")
    words = {"ndcg": "NDCG", "mrr": "MRR", "auc": "AUC", "hit": "Hit", "category_hit": "Category Hit"}
    return words.get(name, name) + at + k
