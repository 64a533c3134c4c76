"""What figures say and don't say, in sentences; from the figures alone."""

from collections.abc import Collection

from recsys_jax.config import RECIPES
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import CONTROL, ENSEMBLE, MODEL
from recsys_jax.evaluation.report import METRICS, Comparison, Report

FEW = 100
"""With fewer customers, an interval of a bootstrap is itself a rough guess."""


WHO = {
    "in-sample": "In-sample, for the purchases that it was trained on",
    "new-products": "For products that nobody has bought yet",
    "time": "For later purchases",
    "new-combinations": "For combinations of attributes it has never seen",
}
"""What a split asks for; the others ask for customers never seen."""

NEVER_SEEN = "For customers it has never seen"


def bestsellers(methods: Collection[str]) -> str:
    """The method that is a bestseller list; of new products, that of their category where there are categories."""
    return next((name for name in ("popularity", "popularity by category") if name in methods), "random")


def best_baseline(found: Report) -> str:
    """The baseline with the highest MRR."""
    names = [name for name in found.means if name not in (MODEL, ENSEMBLE, CONTROL, *RECIPES)]
    return max(names, key=lambda name: found.means[name]["mrr"].mean)


def headline(found: Report) -> str:
    """Whether the model is better than a bestseller list, by how much, and how sure that is.

    Where attributes were derived from the purchases asked for, it is of the figures without that leak.
    """
    found = found.leak_free or found
    said = f"{WHO.get(found.evaluation.split, NEVER_SEEN)}, {_versus(found, bestsellers(found.means))}."
    return f"{said} {_remark_on(found)}".rstrip()


def better_recipe(found: Report, own: str, other: str) -> str:
    """Which of two recipes serves new customers better, and whether either beats a bestseller list; then the figures.

    Args:
        found: of the recipe `own` as the model, beside the recipe `other`; without the leak, where there was one.
        own: the name of the model's recipe.
        other: the name of the other one, and of its method.
    """
    found = found.leak_free or found
    methods = {own: MODEL, other: other}
    yardstick = bestsellers(found.means)
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
        said += f" {name.capitalize()} {_beats(one)}."
    best = best_baseline(found)
    if best != yardstick:
        beside = (f"{name} is {found.difference(method, best).reading}" for name, method in methods.items())
        said += f" Beside the best baseline, {best} (MRR {found.means[best]['mrr'].mean:.4f}), {', '.join(beside)}."
    return f"{said} {_remark_on(found)}".rstrip()


def ranking(result: Comparison, split: str, recipes: Collection[str]) -> str:
    """Who is ahead, who may be as good, and whether the best recipe is better than a bestseller list."""
    rows = {row.method: row for row in result.rows}
    first, *rest = result.rows
    best = next((row for row in result.rows if row.method in recipes), None)
    level = [row.method for row in rest if row.reading() == "inside the noise"]
    mrr = _plain(first.means[METRICS[0]]) if best is first else f"{first.means[METRICS[0]].mean:.4f}"
    asked = WHO.get(split, NEVER_SEEN).replace("it has never", "never")
    said = f"{asked}, {first.method} is ahead of {len(rest)} others: MRR {mrr}."
    if level:
        more = f" and {len(level) - 1} more" if len(level) > 1 else ""
        said += f" Inside the noise of it: {level[0]}{more}."
    yardstick = bestsellers(rows)
    if best is not None and yardstick in rows:
        who = "It" if best is first else f"The best recipe, {best.method},"
        said += f" {who} {_beats(result.difference(best, rows[yardstick]), yardstick)}."
    inverse = None
    if {"popularity", "inverse popularity"} <= set(rows):
        inverse = result.difference(rows["inverse popularity"], rows["popularity"])
    return f"{said} {_remark(inverse, result.customers)}".rstrip()


def _remark_on(found: Report) -> str:
    """The most important finding that qualifies the headline, if there is one."""
    if CONTROL in found.differences and all(
        found.differences[CONTROL][metric].reading != "better" for metric in _metrics(found)
    ):
        return "But the attributes tell it nothing: with those of other customers it does as well."
    return _remark(found.inverse, found.customers)


def _remark(inverse: Interval | None, customers: int) -> str:
    """On the yardstick, from the difference between inverse popularity and popularity; or on how few were asked."""
    if inverse is not None and inverse.low > 0:
        return "A bestseller list is a poor yardstick here: its inverse beats it."
    return f"Only {customers} customers were asked: this is rough." if customers < FEW else ""


def _beats(difference: Interval, yardstick: str = "popularity") -> str:
    how = {"better": "beats", "worse": "loses to"}.get(difference.reading, "is inside the noise of")
    return f"{how} {'chance' if yardstick == 'random' else 'a bestseller list'} ({_interval(difference)})"


def _versus(found: Report, yardstick: str) -> str:
    difference = found.differences[yardstick]["mrr"]
    than = "chance" if yardstick == "random" else "a bestseller list"
    figures = (
        f"MRR {found.means[MODEL]['mrr'].mean:.4f} against {found.means[yardstick]['mrr'].mean:.4f} "
        f"({_interval(difference)})"
    )
    if not difference.clear:
        return f"it is not sure that the model is better than {than}: {figures}"
    return f"the model is {difference.reading} than {than}: {figures}"


def _interval(difference: Interval) -> str:
    return f"{difference.mean:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f}"


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
    rivals = [method for method in found.differences if method not in (CONTROL, ENSEMBLE, *RECIPES)]
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
    auc = found.means[MODEL]["auc"]
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
            model, chance = found.means[MODEL][metric], found.means["random"][metric].mean
            out.append(f"{_shown(metric)} is {where} chance: {_plain(model)}, random {chance:.4f}.")
    return out


def _leak(found: Report) -> str:
    said = (
        "Personas were derived from the review of the very purchase that is asked for: the customers' attributes have "
        "seen a part of the answer."
    )
    if found.leak_free is None:
        return said
    leaky, honest = found.means[MODEL]["mrr"], found.leak_free.means["model"]["mrr"]
    return (
        f"{said} MRR of the model with this leak {_plain(leaky)}; without it, with personas drawn from the training "
        f"customers' shares, {_plain(honest)}. A new customer is like the second."
    )
