"""What figures say and don't say, in sentences; from the figures alone."""

from collections.abc import Collection, Mapping

from recsys_jax.config import RECIPES, Language
from recsys_jax.data.schema import label_of
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import CONTROL, ENSEMBLE, MODEL
from recsys_jax.evaluation.report import BESTSELLERS, METRICS, Compared, Comparison, Report
from recsys_jax.evaluation.sentences import Sentences, reading

FEW = 100  # with fewer customers, an interval of a bootstrap is itself a rough guess

_ENGLISH = Sentences()
# What a split asks for; the others ask for customers never seen.
_ASKED = ("in-sample", "new-products", "time", "new-combinations")


def _who(split: str, say: Sentences) -> str:
    return say(f"who.{split if split in _ASKED else 'never-seen'}")


def bestsellers(methods: Collection[str], say: Sentences = _ENGLISH) -> tuple[str, str]:
    """The method that is a bestseller list, and what it is called; chance where there is none."""
    found = sorted(BESTSELLERS & set(methods))
    return (found[0], say("yardstick.bestsellers")) if found else ("random", say("yardstick.chance"))


def yardstick(found: Compared, say: Sentences = _ENGLISH) -> tuple[str, str]:
    """The bestseller list, or chance where it is no merit to beat that list; and what it is called."""
    return bestsellers(() if found.no_merit else found.names, say)


def rungs(found: Report, say: Sentences = _ENGLISH) -> dict[str, str]:
    """By what each is called, what the model must beat, the least first: chance, the yardstick, the best baseline.

    In-sample, not the last: baselines that remember more are no better for it.
    """
    called = dict([yardstick(found, say), bestsellers(found.names, say)]) | {"random": say("yardstick.chance")}
    names = ["random", yardstick(found)[0], *([] if found.evaluation.split == "in-sample" else [best_baseline(found)])]
    return {name: called.get(name, say("yardstick.best", best=say.name(name))) for name in names}


def best_baseline(found: Report) -> str:
    """The baseline with the highest MRR."""
    return highest({name: by_metric["mrr"].mean for name, by_metric in found.means.items()})


def highest(mrr: Mapping[str, float]) -> str:
    """The baseline with the highest MRR, of what each method reached."""
    return max((name for name in mrr if name not in (MODEL, ENSEMBLE, CONTROL, *RECIPES)), key=mrr.__getitem__)


def headline(found: Report, language: Language = "en") -> str:
    """Whether the model is better than what it must beat, by how much, and how sure that is.

    That is the least of the `rungs` that it does not beat, where it beats some, with the one before; where it beats
    all, the bestseller list, or the last one where that is no merit. Where attributes were derived from the purchases
    asked for, it is of the figures without that leak.
    """
    found, say = found.leak_free or found, Sentences(language)
    called, minus = rungs(found, say), {name: one["mrr"] for name, one in found.differences.items()}
    names = list(called)
    beaten = next((n for n, name in enumerate(names) if reading(minus[name]) != "better"), len(names))
    against = names[beaten] if beaten < len(names) else names[-1] if found.no_merit else yardstick(found)[0]
    said = say(
        f"headline.{reading(minus[against])}",
        who=_who(found.evaluation.split, say),
        called=called[against],
        own=found.means[MODEL]["mrr"],
        other=found.means[against]["mrr"],
        interval=say.interval(minus[against], "difference"),
    )
    if 0 < beaten < len(names):
        before = names[beaten - 1]
        said += f" {say('headline.also', beats=_beats(minus[before], called[before], say))}"
    if _no_signal(found):
        said += f" {say('remark.no-signal' if beaten else 'remark.no-signal-either')}"
    if beaten and found.no_merit is not None:  # who looks for the bestseller list hears why it is no yardstick
        said += f" {say(f'remark.{found.no_merit[0]}')}"
    return f"{said} {_few(found.customers, say)}".rstrip()


def most_important(found: Report, language: Language = "en") -> str:
    """The attribute by which most MRR is lost, in a line; empty where none is lost beyond the noise.

    Of the figures that the headline is of; where that says that attributes may not help, there is nothing to add.
    """
    found, say = found.leak_free or found, Sentences(language)
    name, lost = next(iter(found.importance.items()), ("", None))
    if lost is None or reading(lost) != "better" or _no_signal(found):
        return ""
    return say(
        "importance.most", name=label_of(name, found.evaluation.features, language), lost=say.interval(lost, "plain")
    )


def better_recipe(found: Report, own: str, other: str, language: Language = "en") -> str:
    """The headline of the recipe `own`; which of two recipes is better; how the `other` stands to a bestseller list.

    `found` is of `own` as the model, beside a method named `other`; where there was a leak, what is said is of the
    figures without it.
    """
    found, say = found.leak_free or found, Sentences(language)
    methods = {own: MODEL, other: other}
    (beside, called), best = yardstick(found, say), best_baseline(found)
    mean = {name: found.means[method]["mrr"].mean for name, method in methods.items()}
    better, worse = sorted(methods, key=lambda name: -mean[name])
    against = found.difference(methods[better], methods[worse])
    said = [
        headline(found, language),
        say(
            "recipes.sentence",
            which=say(f"recipes.{better if against.clear else 'noise'}"),
            better=better,
            worse=worse,
            first=mean[better],
            second=mean[worse],
            interval=say.interval(against, "difference"),
        ),
        say("recipes.other", own=own, other=other, beats=_beats(found.difference(other, beside), called, say)),
    ]
    if best != beside:
        stands = {name: reading(found.difference(method, best)) for name, method in methods.items()}
        each = [say("recipes.each", name=name, reading=say(f"reading.{one}")) for name, one in stands.items()]
        if len(set(stands.values())) == 1:
            each = [say("recipes.both", reading=say(f"reading.{stands[own]}"))]
        mrr = found.means[best]["mrr"].mean
        said.append(say("recipes.best", best=say.name(best), mrr=mrr, each=", ".join(each)))
    return " ".join(said)


def ranking(result: Comparison, split: str, recipes: Collection[str]) -> str:
    """Who is ahead, who may be as good, and whether the best recipe is better than a bestseller list, or chance."""
    methods = [row.method for row in result.rows]
    first, *rest = result.rows
    best = next((row for row in result.rows if row.method in recipes), None)
    level = [row.method for row in rest if row.reading() == "inside the noise"]
    mrr = (
        _ENGLISH.interval(first.means[METRICS[0]], "plain") if best is first else f"{first.means[METRICS[0]].mean:.4f}"
    )
    asked = _who(split, _ENGLISH).replace("it has never", "never")
    said = f"{asked}, {first.method} is ahead of {len(rest)} others: MRR {mrr}."
    if level:
        more = f" and {len(level) - 1} more" if len(level) > 1 else ""
        said += f" Inside the noise of it: {level[0]}{more}."
    beside, called = yardstick(result)
    if best is not None and beside in methods:
        who = "It" if best is first else f"The best recipe, {best.method},"
        said += f" {who} {_beats(result.difference(best.method, beside), called, _ENGLISH)}."
    if result.no_merit:
        said += f" {_ENGLISH(f'remark.{result.no_merit[0]}')}"
    return f"{said} {_few(result.customers, _ENGLISH)}".rstrip()


def findings(found: Report, *, derived: bool | None = None, language: Language = "en") -> list[str]:
    """The sentences to read beside the table; `derived` says whether attributes come from the purchases asked for.

    It is None where customers were not made of reviews, which takes no sentence.
    """
    out, say = [], Sentences(language)
    if found.evaluation.split == "in-sample":
        out.append(say("finding.in-sample"))
    if derived or found.leak_free is not None:
        out.append(leak(found, language))
    elif derived is not None:
        out.append(say("finding.profiles"))
    out += _rivals(found, say)
    if CONTROL in found.differences:
        out += _control(found, say)
    for metric, one in found.differences.get("random", {}).items():
        if metric.startswith("category_hit") and one.reading != "better":
            where = "chance" if one.reading == "inside the noise" else "below"
            model, chance = found.means[MODEL][metric], found.means["random"][metric].mean
            fields = {"metric": say.metric(metric), "model": say.interval(model, "plain"), "chance": chance}
            out.append(say(f"finding.category-{where}", **fields))
    if found.no_merit is not None:
        which, lead = found.no_merit
        why = say("finding.flat" if found.evaluation.flat else "finding.not-flat")
        out.append(say(f"finding.{which}", difference=say.interval(lead, "signed"), why=why))
    if found.customers < FEW:
        out.append(say("finding.few", n=found.customers))
    return out


def leak(found: Report, language: Language = "en") -> str:
    """That attributes come from the purchases asked for, and what that is worth."""
    say = Sentences(language)
    said = say("finding.leak")
    if found.leak_free is None:
        return said
    leaky, honest = (say.interval(one.means[MODEL]["mrr"], "plain") for one in (found, found.leak_free))
    return f"{said} {say('finding.leaks', leaky=leaky, honest=honest)}"


def _rivals(found: Report, say: Sentences) -> list[str]:
    rivals = [method for method in found.differences if method not in (CONTROL, ENSEMBLE, *RECIPES)]
    short = {method: _not_better(found, method) for method in rivals}
    unbeaten = [
        say("finding.rival", method=say.name(method), how=_how(found, by, say)) for method, by in short.items() if by
    ]
    if unbeaten:
        return [say("finding.not-better", methods=", ".join(unbeaten))]
    metrics = say.name(" and ").join(map(say.metric, _judged(found)))
    return [say("finding.best", n=len(rivals), metrics=metrics)] if rivals else []


def _how(found: Report, differences: Mapping[str, Interval], say: Sentences) -> str:
    """What the differences say, by metric unless all metrics say the same; the figures stand in the tables."""
    said = {say.metric(metric): say(f"reading.{reading(one)}") for metric, one in differences.items()}
    if len(said) == len(_judged(found)) and len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{metric} {how}" for metric, how in said.items())


def _control(found: Report, say: Sentences) -> list[str]:
    out = []
    if _no_signal(found):
        out.append(say("finding.no-signal", each=_each(_not_better(found, CONTROL), say)))
    auc = found.means[MODEL]["auc"]
    if auc.low <= 0.5 <= auc.high:
        out.append(say("finding.auc-chance", auc=say.interval(auc, "plain")))
    elif auc.high < 0.5:
        out.append(say("finding.auc-below", auc=say.interval(auc, "plain")))
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


def _few(customers: int, say: Sentences) -> str:
    return say("remark.few", n=customers) if customers < FEW else ""


def _beats(difference: Interval, called: str, say: Sentences) -> str:
    return say(f"beats.{reading(difference)}", called=called, interval=say.interval(difference, "difference"))


def _each(differences: Mapping[str, Interval], say: Sentences) -> str:
    """By metric, the differences and what they say; in one clause where both say the same."""
    said = [(say.metric(metric), say.interval(one, "signed"), reading(one)) for metric, one in differences.items()]
    if len(said) == 2 and said[0][2] == said[1][2]:
        (one, first, how), (other, second, _) = said
        return say("each.both", one=one, first=first, other=other, second=second, reading=say(f"reading.{how}"))
    return "; ".join(say("each.one", one=one, first=first, reading=say(f"reading.{how}")) for one, first, how in said)
