"""Reports and findings: figures that are put in, and the sentences that must follow from them."""

import json
import math
import re
import tomllib
from dataclasses import replace
from importlib.resources import files
from typing import get_args

import numpy as np
import pytest

from recsys_jax.config import Language
from recsys_jax.evaluation.engine import CONTROL, MODEL, Answers, Evaluation
from recsys_jax.evaluation.findings import better_recipe, findings, headline
from recsys_jax.evaluation.queries import top_lists
from recsys_jax.evaluation.report import report
from recsys_jax.evaluation.sentences import Sentences
from recsys_jax.report.contents import verdicts

N = 400
METRICS = ("hit@3", "category_hit@3", "mrr", "ndcg@3", "auc")


def noisy(mean: float, seed: int, n: int = N) -> np.ndarray:
    """Figures whose mean is this one."""
    noise = np.random.default_rng(seed).normal(0, 0.05, n)
    return mean + noise - noise.mean()


def evaluation(n: int = N, split: str = "cross-validation", **means: float) -> Evaluation:
    """By method, figures around a mean; `category` and `auc` are the model's."""
    category, auc = means.pop("category", 0.9), means.pop("auc", 0.8)
    names = {"inverse": "inverse popularity", "bayes": "naive Bayes", "control": CONTROL}
    values = {}
    for number, (key, mean) in enumerate({"model": 0.5, "random": 0.1, "popularity": 0.3, **means}.items()):
        own = {name: noisy(mean, 10 * number + i, n) for i, name in enumerate(METRICS)}
        own["category_hit@3"] = noisy(category if key == "model" else 0.5, 100 + number, n)
        own["auc"] = noisy(auc if key == "model" else 0.5, 200 + number, n)
        values[names.get(key, key)] = own
    lists = {3: top_lists(np.random.default_rng(0).random((n, 7)), k=3)}
    return Evaluation(
        split=split,
        protocol=split,
        ks=(3,),
        customers=np.arange(n),
        products=np.zeros(n, np.int64),
        segments=None,
        segment_word="persona",
        methods={
            name: Answers(
                {metric: each[None] for metric, each in own.items()},
                lists=lists if name == MODEL else {},
                novelty={3: np.ones(n)} if name == MODEL else {},
            )
            for name, own in values.items()
        },
        listed=np.arange(n),
        candidates=7,
    )


def changed(result: Evaluation, method: str, seeds: tuple[int, ...] = (), **values: np.ndarray) -> Evaluation:
    """With other values of a method."""
    own = result.methods[method]
    rows = {name.replace("_at_", "@"): np.atleast_2d(each) for name, each in values.items()}
    return replace(result, methods={**result.methods, method: replace(own, seeds=seeds, values={**own.values, **rows})})


def said(result: Evaluation, **options: bool) -> str:
    return "\n".join(findings(report(result), **options))


def test_a_model_that_wins_is_told_so_and_nothing_else():
    assert said(evaluation(inverse=0.05, bayes=0.4, control=0.3)) == (
        "The model beats all 4 baselines in MRR and NDCG@3."
    )


def test_all_methods_that_are_not_beaten_stand_in_one_point():
    """Worse and inside the noise are told apart; a metric that is beaten is not named."""
    result = changed(evaluation(bayes=0.6, popularity=0.5, inverse=0.3), "inverse popularity", ndcg_at_3=noisy(0.7, 1))
    found = report(result)
    methods = "popularity (inside the noise), naive Bayes (worse), inverse popularity (NDCG@3 worse)"
    assert findings(found)[0] == f"The model is not shown to be better than: {methods}."
    assert findings(found, language="ko")[0] == (
        "이 모델이 다음 방법보다 낫다고 말할 수 없습니다: "
        "베스트셀러 목록(오차 범위 안), 나이브 베이즈(열세), 뒤집은 베스트셀러 목록(NDCG@3 열세)."
    )
    assert "better than" not in "".join(findings(found)[1:])


@pytest.mark.parametrize(("control", "warned"), [(0.5, True), (0.55, True), (0.45, False)])
def test_a_control_that_does_as_well_means_no_signal(control, warned):
    assert ("No clear signal from attributes" in said(evaluation(control=control))) is warned


@pytest.mark.parametrize(("auc", "words"), [(0.5, "AUC is at chance"), (0.4, "AUC is below chance"), (0.6, None)])
def test_auc_at_chance(auc, words):
    text = said(evaluation(control=0.3, auc=auc))
    assert (words in text) if words else ("AUC" not in text)


@pytest.mark.parametrize(("category", "words"), [(0.5, "at chance"), (0.4, "below chance"), (0.6, None)])
def test_category_hits_at_chance(category, words):
    text = said(evaluation(category=category))
    assert (f"Category Hit@3 is {words}" in text) if words else ("Category" not in text)


@pytest.mark.parametrize(("inverse", "warned"), [(0.35, True), (0.3, False), (0.1, False)])
def test_inverse_popularity_above_popularity(inverse, warned):
    result = evaluation(inverse=inverse)
    assert ("Inverse popularity beats popularity: MRR +0.0" in said(result)) is warned
    # To beat it is no merit then, so the page's first lines do not say so.
    assert ("a bestseller list" not in dict(map(reversed, verdicts(report(result), Sentences("en"))))) is warned


def test_only_flat_counts_are_called_flat():
    """On a large shop, what is bought changes with time; its counts tell much, and differ by far more than chance."""
    result = evaluation(inverse=0.35)
    text = said(result)
    assert "Inverse popularity beats popularity" in text
    assert "flat" not in text
    assert "counts this flat tell little else" in said(replace(result, flat=True))


def test_few_customers_are_said():
    assert "Only 60 customers were asked for" in said(evaluation(60))
    assert "customers were asked" not in said(evaluation(100))


def test_what_was_derived_is_said_with_both_figures():
    honest = evaluation(model=0.2)
    text = said(replace(evaluation(), leak_free=honest))
    assert "derived from the review of the very purchase" in text
    assert "with this leak 0.5" in text
    assert "training customers' shares, 0.2" in text
    assert "derived from the review" in said(evaluation(split="in-sample"), derived=True)
    assert "memory, not foresight" in said(evaluation(split="in-sample"))
    assert "derived" not in said(evaluation(), derived=False)
    assert "from the reviewers' profiles" in said(evaluation(), derived=False)
    assert "profiles" not in said(evaluation())


def test_the_document_holds_every_figure_once_and_is_json():
    result = evaluation(bayes=0.5)
    for method in result.methods:
        result = changed(result, method, auc=np.full(N, np.nan))
    result = replace(result, segments=("a",) * 100 + ("b",) * 300, leak_free=evaluation())
    found = report(result, count=300, seed=4)
    document = json.loads(json.dumps(found.document(["one"], ["other"]), allow_nan=False))
    assert document["queries"] == {"all": 400, "b": 300, "a": 100}
    assert document["intervals"] == {"level": 0.95, "resamples of customers": 300, "seed": 4}
    mrr = result.values["model"]["mrr"]
    own = document["methods"]["model"]["mrr"]
    assert own["all"]["mean"] == pytest.approx(mrr.mean())
    assert own["a"]["mean"] == pytest.approx(mrr[:100].mean())
    # The bootstrap's interval is near the textbook's: 1.96 standard errors on each side.
    error = 1.96 * mrr.std(ddof=1) / math.sqrt(N)
    assert own["all"]["low"] == pytest.approx(mrr.mean() - error, abs=error / 4)
    assert own["all"]["high"] == pytest.approx(mrr.mean() + error, abs=error / 4)
    assert document["methods"]["model"]["auc"]["all"] == {"mean": None, "low": None, "high": None, "n": 0}
    gap = document["model minus"]["naive Bayes"]["mrr"]
    assert gap["mean"] == pytest.approx((mrr - result.values["naive Bayes"]["mrr"]).mean())
    assert gap["reading"] == "inside the noise"
    assert set(document["lists"]["model"]) == {"coverage@3", "gini@3", "novelty@3"}
    assert document["findings"] == ["one"]
    assert document["leak-free"]["findings"] == ["other"]


def test_the_resamples_follow_the_seed():
    result = evaluation()
    one, same, other = (report(result, seed=seed).means["model"]["mrr"] for seed in (1, 1, 2))
    assert one == same
    assert one.mean == other.mean
    assert one.low != other.low


def test_training_noise_widens_a_difference():
    """Five models whose means differ: with other seeds the difference might have another sign."""
    result = evaluation(popularity=0.47)
    by_seed = {metric: np.stack([noisy(0.5 + shift, 7) for shift in (-0.2, -0.1, 0, 0.1, 0.2)]) for metric in METRICS}
    rows = {metric.replace("@", "_at_"): values for metric, values in by_seed.items()}
    several = changed(result, MODEL, (0, 1, 2, 3, 4), **rows)
    alone, both = (report(each).differences["popularity"]["mrr"] for each in (result, several))
    assert alone.clear
    assert not both.clear
    document = report(several).document()
    assert document["over seeds"]["mrr"]["all"]["standard deviation"] == pytest.approx(math.sqrt(0.025), rel=0.1)


@pytest.mark.parametrize(
    ("popularity", "words"),
    [
        (0.3, "the model is better than a bestseller list: MRR 0.5000 against 0.3000 (+0.2000, 95 % interval +0."),
        (0.7, "the model is worse than a bestseller list: MRR 0.5000 against 0.7000 (-0.2000, 95 % interval -0."),
        (0.5, "it is not sure that the model is better than a bestseller list: MRR 0.5000 against 0.5000"),
    ],
)
def test_the_headline_says_whether_a_bestseller_list_is_beaten(popularity, words):
    said = headline(report(evaluation(popularity=popularity)))
    assert said.startswith("For customers it has never seen, " + words)
    assert "poor yardstick" not in said


def test_the_headline_is_of_the_figures_without_the_leak():
    said = headline(report(replace(evaluation(popularity=0.3), leak_free=evaluation(popularity=0.7))))
    assert "worse than a bestseller list: MRR 0.5000 against 0.7000" in said


def test_the_headline_names_all_that_qualify_it():
    said = headline(report(evaluation(60, popularity=0.3, control=0.5)))
    assert "the model is better than a bestseller list" in said
    assert said.endswith(" But it is not sure that attributes help: others' do as well. Only 60 customers were asked.")


@pytest.mark.parametrize(
    ("means", "why"),
    [
        ({"popularity": 0.3, "inverse": 0.4}, "Inverse popularity beats popularity: MRR +0.1000"),
        ({"popularity": 0.08}, "A bestseller list is not shown to be better than chance here: MRR -0.0200"),
        ({"popularity": 0.1}, "A bestseller list is not shown to be better than chance here: MRR -0.0000"),
    ],
)
def test_a_bestseller_list_that_is_no_yardstick_is_not_one(means, why):
    """Of a model that beats it: the first sentences say that it is none, the first lines of the page do not name it."""
    found = report(evaluation(bayes=0.45, **means))
    assert "better than naive Bayes, the best simple method measured here" in headline(found)
    assert (
        headline(found).count("bestseller")
        == headline(found).count("A bestseller list is a poor yardstick here: ")
        == 1
    )
    assert verdicts(found, Sentences("en")) == [("better", "naive Bayes")]
    assert why in "\n".join(findings(found))
    worse = report(evaluation(bayes=0.6, control=0.5, **means))
    said = headline(worse)
    assert "worse than naive Bayes, the best simple method measured here: MRR 0.5000 against 0.6000" in said
    assert " It beats chance (MRR +0.4000" in said
    assert " But it is not sure that attributes help: others' do as well. A bestseller list is a poor yardstick" in said
    assert verdicts(worse, Sentences("en")) == [("worse", "naive Bayes")]


@pytest.mark.parametrize("popularity", [0.08, 0.3])
@pytest.mark.parametrize(("model", "how"), [(0.1, "noise"), (0.09, "worse")])
def test_where_chance_is_not_beaten_that_is_said_first(popularity, model, how):
    """Whatever else is beaten: a bestseller list below chance, too."""
    found = report(evaluation(model=model, popularity=popularity, bayes=0.105, control=model))
    first = {"noise": "it is not sure that the model is better than chance", "worse": "the model is worse than chance"}
    said = headline(found)
    assert said.startswith(f"For customers it has never seen, {first[how]}: MRR {model:.4f} against 0.1000 (")
    assert said.endswith(" Nor is it sure that attributes help: others' do as well.")
    assert "beats" not in said
    told = verdicts(found, Sentences("en"))
    assert told[0] == (how, "chance")
    assert "better" not in dict(told)
    korean = {
        "noise": "이 모델의 추천이 무작위 추천보다 낫다고 말하기 어렵습니다",
        "worse": "이 모델의 추천이 무작위 추천보다 못합니다",
    }
    assert headline(found, "ko").startswith(f"처음 보는 고객에게는 {korean[how]}: MRR {model:.4f} 대 0.1000(")


@pytest.mark.parametrize(
    ("wide", "words"),
    [
        (0.4, "The neural network (deep) is better than the simple recipe (wide): MRR 0.5000 of deep, 0.4000 of wide"),
        (0.6, "The simple recipe (wide) is better than the neural network (deep): MRR 0.6000 of wide, 0.5000 of deep"),
        (0.5, "It is not sure whether the simple recipe (wide) or the neural network (deep) is better: MRR 0.5000 of "),
    ],
)
def test_the_better_of_two_recipes(wide, words):
    result = evaluation(popularity=0.5, wide=wide)
    said = better_recipe(report(result), "deep", "wide")
    assert said.startswith(f"{headline(report(result))} {words}")
    assert "it is not sure that the model is better than a bestseller list" in said
    how = {0.4: "wide loses to", 0.6: "wide beats", 0.5: "wide is inside the noise of"}[wide]
    assert f"This model is deep; {how} a bestseller list (MRR " in said


def test_two_recipes_that_both_beat_a_bestseller_list():
    said = better_recipe(report(evaluation(popularity=0.3, wide=0.4)), "deep", "wide")
    assert said.startswith("For customers it has never seen, the model is better than a bestseller list: MRR 0.5000 ")
    assert "against 0.3000 (+0.2000, " in said
    assert "wide beats a bestseller list (MRR +0.1000, " in said


def test_the_best_simple_method_is_what_the_first_sentence_compares_with_where_nothing_beats_it():
    """With by how much, of two recipes and of one; not where it is beaten, or the bestseller list is not."""
    for popularity in (0.3, 0.45):
        level = report(evaluation(popularity=popularity, wide=0.4, bayes=0.55))
        each = "(MRR 0.5500), both are worse."
        assert better_recipe(level, "deep", "wide").endswith(f"measured here, naive Bayes {each}")
        for said in (headline(level), better_recipe(level, "deep", "wide")):
            first, second, *_ = said.split(". ")
            best = "naive Bayes, the best simple method measured here"
            assert f"worse than {best}: MRR 0.5000 against 0.5500 (-0.0500, 95 %" in first
            assert "bestseller" not in first
            assert second.startswith("It beats a bestseller list (MRR +0.")
    assert "naive Bayes" not in headline(report(evaluation(popularity=0.3, bayes=0.2)))
    assert "naive Bayes" not in headline(report(evaluation(popularity=0.6, bayes=0.7)))
    assert "naive Bayes" not in headline(report(evaluation(popularity=0.3, bayes=0.55, split="in-sample")))


@pytest.mark.parametrize("split", ["cross-validation", "in-sample", "new-products", "time", "new-combinations"])
@pytest.mark.parametrize("model", [0.5, 0.3, 0.1])
def test_korean_says_the_same_figures(model, split):
    """Each finding, in the same order, with the same figures, and nothing in English but names that both use."""
    result = evaluation(model=model, inverse=0.35, bayes=0.4, control=model, category=0.5, auc=0.5, split=split, n=60)
    found = report(replace(result, leak_free=evaluation(model=0.2)))
    for of in (lambda language: [headline(found, language)], lambda language: findings(found, language=language)):
        english, korean = of("en"), of("ko")
        figures = [[re.findall(r"[+-]?\d+\.\d+", text) for text in one] for one in (english, korean)]
        assert figures[0] == figures[1]
        for text in korean:
            assert set(re.findall("[A-Za-z]{2,}", text)) <= {"MRR", "NDCG", "AUC", "Hit"}


def test_beside_the_best_baseline_each_recipe_is_named_only_where_they_differ():
    found = report(evaluation(wide=0.4, bayes=0.5))
    assert better_recipe(found, "deep", "wide").endswith("(MRR 0.5000), deep is inside the noise, wide is worse.")
    found = report(evaluation(wide=0.5, bayes=0.5, popularity=0.3))
    assert better_recipe(found, "deep", "wide", "ko").endswith("에 견주면 둘 다 오차 범위 안입니다.")


def test_korean_of_two_recipes():
    found = report(evaluation(wide=0.45, bayes=0.4))
    english, korean = (better_recipe(found, "deep", "wide", language) for language in ("en", "ko"))
    assert re.findall(r"[+-]?\d+\.\d+", english)[:2] == re.findall(r"[+-]?\d+\.\d+", korean)[:2]
    first, second, *_ = korean.split(". ")
    assert first.startswith("처음 보는 고객에게는 이 모델의 추천이 베스트셀러 목록보다 낫습니다: MRR 0.5000 대 0.3000(")
    assert second.startswith("신경망(deep)이 단순한 레시피(wide)보다 낫습니다: MRR deep 0.5000, wide 0.4500(")


def test_every_sentence_has_each_language_and_the_same_fields():
    texts = tomllib.loads(files("recsys_jax.evaluation").joinpath("findings.toml").read_text("utf-8"))
    del texts["names"]
    for one in (text for group in texts.values() for text in group.values()):
        assert list(one) == list(get_args(Language))
        named = [{name.lower() for name in re.findall(r"{(\w+)", text)} for text in one.values()]
        assert named[0] == named[1]


def test_a_group_of_fewer_than_ten_purchases_has_no_interval():
    result = replace(evaluation(40), segments=("nine",) * 9 + ("ten",) * 10 + ("more",) * 21)
    groups = report(result, count=50).groups
    assert {name for name, found in groups.items() if math.isnan(found["mrr"].low)} == {"nine"}
    assert groups["nine"]["mrr"].mean == pytest.approx(result.mean(MODEL, "mrr", "nine"))
