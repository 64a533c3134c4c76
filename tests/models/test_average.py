"""The average customer of a training: counted by hand from the tables."""

import numpy as np
import pytest
from conftest import MALL_CUSTOMERS, RECIPES

from recsys_jax import fit, load_dataset


@pytest.mark.parametrize("recipe", ["deep", "wide"], ids=str)
def test_shares_are_those_of_purchases(model_of, recipe):
    """A purchase each in the mall; a film's viewer counts as often as they watched."""
    mall = model_of("mall", recipe).average
    genders = [row[3] for row in MALL_CUSTOMERS]
    assert mall.shares["gender"].tolist() == pytest.approx([genders.count("F") / 10, genders.count("M") / 10])
    # v1 (Drama, KR, 30) watched two films, v2 (Drama and Crime, FR, no age) one, v3 (Comedy, KR, 50) two, and v4 (no
    # genres, no country, 70) two; in the order of the vocabulary, then unknown, then missing.
    films = model_of("films", recipe).average
    assert films.shares["likes"].tolist() == pytest.approx(np.array([3, 1, 2, 0, 2]) / 7)
    assert films.shares["country"].tolist() == pytest.approx(np.array([4, 1, 0, 2]) / 7)
    assert films.shares["age"][-1] == pytest.approx(1 / 7)


@pytest.mark.parametrize("recipe", ["deep", "wide"], ids=str)
def test_the_knots_of_a_number_have_its_mean(model_of, recipe):
    """Weights of knots between which a number lies: their mean is the number's."""
    model = model_of("films", recipe)
    shares, knots = model.average.shares["age"], model.average.knots["age"]
    ages = np.array([30, 30, 50, 50, 70, 70]) / 100
    assert float(shares[:-1] @ knots) == pytest.approx(ages.sum() / 7, abs=1e-6)
    assert shares.sum() == pytest.approx(1, abs=1e-6)


def test_only_training_counts(mall):
    """Held-out customers are in nobody's average."""
    dataset = load_dataset(mall)
    train = np.array([row[3] == "F" for row in MALL_CUSTOMERS])
    model = fit(dataset, RECIPES["wide"], train=train)
    assert model.average.shares["gender"].tolist() == pytest.approx([1.0, 0.0])
