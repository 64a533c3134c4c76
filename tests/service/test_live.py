"""A new model in the run folder: taken whole and in one step, or told and left."""

import os
import shutil
import threading

import pytest
from asgi import application, ask

from recsys_jax import Recommender, save_model

DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
EVERYONE = {"attributes": DRY, "top_n": 8, "explain": True}


@pytest.fixture
def run(mall_run, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(mall_run, tmp_path / "run")


def answered(run):
    return {"products": Recommender.load(run).recommend(**EVERYONE)}


def test_nothing_new_is_not_loaded_again(run):
    app = application(run)
    before = app.live.now
    assert not app.live.look()
    os.utime(run / "model.json")
    assert app.live.look()
    assert app.live.now.fingerprint == before.fingerprint


def test_a_new_model_is_taken_in_one_step(run, model_of):
    app = application(run)
    assert ask(app, "/recommend", EVERYONE).json == answered(run)
    save_model(model_of("mall", "wide"), run)
    old = ask(app, "/recommend", EVERYONE)
    assert app.live.look()
    new = ask(app, "/recommend", EVERYONE)
    assert new.json == answered(run) != old.json
    assert new.headers["x-model"] != old.headers["x-model"]
    assert 'reloads_total{result="taken"} 1' in ask(app, "/metrics").body.decode()


def test_another_schema_makes_another_document(run, model_of):
    app = application(run)
    assert "skin_type" in ask(app, "/openapi.json").body.decode()
    save_model(model_of("films", "wide"), run)
    app.live.look()
    assert "favourite_genres" in ask(app, "/openapi.json").body.decode()
    assert ask(app, "/recommend", {"attributes": {}}).status == 200


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_one_is_told_and_the_old_one_stays(run, model_of, caplog, damage):
    app = application(run)
    before = ask(app, "/recommend", EVERYONE)
    model = run / "model.json"
    whole = model.read_bytes()
    if damage == "cut":
        model.write_bytes(whole[:-100])
    elif damage == "gone":
        model.unlink()
    else:
        model.write_bytes(whole.replace(b'"format": ', b'"format": 9'))
    assert app.live.look()
    assert ask(app, "/recommend", EVERYONE) == before
    assert "stays in service" in caplog.text
    assert str(model) in caplog.text
    assert 'reloads_total{result="refused"} 1' in ask(app, "/metrics").body.decode()
    assert not app.live.look()  # told once
    save_model(model_of("mall", "wide"), run) if damage == "gone" else model.write_bytes(whole)
    assert app.live.look()
    assert 'reloads_total{result="taken"} 1' in ask(app, "/metrics").body.decode()


def test_new_rules_and_purchases_are_taken_too(run, tmp_path, mall):
    rules = tmp_path / "boosts.toml"
    text = '[[boost]]\nname = "x"\ncustomer = {{ skin_type = ["dry"] }}\nproduct = {{ category = [98] }}\nadd = {}\n'
    rules.write_text(text.format(0.5))
    app = application(run, boosts=rules, dataset=mall)
    assert {one["boost"] for one in ask(app, "/recommend", EVERYONE).json["products"]} == {0.0, 0.5}
    rules.write_text(text.format(0.25))
    app.live.look()
    assert {one["boost"] for one in ask(app, "/recommend", EVERYONE).json["products"]} == {0.0, 0.25}
    bought = ask(app, "/recommend", {"customer_id": "u1", "top_n": 8}).json["products"]
    assert "p1" not in [one["product_id"] for one in bought]
    customers = mall / "customers.json"
    customers.write_text(customers.read_text().replace('"purchased_product_id": "p1"', '"purchased_product_id": "p2"'))
    app.live.look()
    bought = [one["product_id"] for one in ask(app, "/recommend", {"customer_id": "u1", "top_n": 8}).json["products"]]
    assert "p1" in bought
    assert "p2" not in bought


def test_requests_during_reloads_are_of_one_model_each(run, model_of):
    """What an answer's header names is what it is made of, whoever reloads meanwhile."""
    app, expected = application(run), {}
    models = [model_of("mall", name) for name in ("wide", "deep")]
    for model in models:
        save_model(model, run)
        app.live.look()
        expected[app.live.now.fingerprint[:12]] = answered(run)
    over, wrong, seen = threading.Event(), [], set()

    def keep_asking():
        while not over.is_set():
            got = ask(app, "/recommend", EVERYONE)
            seen.add(got.headers["x-model"])
            if got.status != 200 or got.json != expected[got.headers["x-model"]]:
                wrong.append(got)

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(6):
        save_model(models[number % 2], run)
        assert app.live.look()
    over.set()
    for thread in threads:
        thread.join()
    assert (wrong, seen) == ([], set(expected))
