"""What is refused, by a sentence each; the token, the limits, the metrics, the pages."""

import json
import logging
import re
import shlex
import sys

import pytest
from asgi import JSON, application, ask

from recsys_jax import InputError, Recommender
from recsys_jax.service.calls import CALLS, Limits
from recsys_jax.service.metrics import Metrics

DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def app(mall_run):
    return application(mall_run, body=2000)


@pytest.fixture(scope="module")
def rec(mall_run):
    return Recommender.load(mall_run)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attributes": {**DRY, "skin_type": "scaly"}},
        {"attributes": {**DRY, "age": 200}},
        {"attributes": {**DRY, "agee": 30}},
        {"attributes": {"age": 30}},
        {"attributes": ["dry"]},
        {"attributes": DRY, "top_n": 0},
        {"attributes": DRY, "top_n": 2.5},
        {"attributes": DRY, "categories": ["Shoes"]},
        {"attributes": DRY, "available": ["p99"]},
        {"attributes": DRY, "available": "p1"},
        {"attributes": DRY, "purchased_products": ["p99"], "strict": True},
        {"attributes": DRY, "purchased_products": {"p1": 1}},
        {"attributes": DRY, "diversity": 2},
        {"attributes": DRY, "at_most": {"colour": 1}},
        {"attributes": DRY, "at_most": ["brand"]},
        {"attributes": DRY, "pinned": ["p99"]},
    ],
    ids=str,
)
def test_the_librarys_sentence_with_the_path_for_the_call(app, rec, wrong):
    with pytest.raises(InputError) as caught:
        rec.recommend(**wrong)
    got = ask(app, "/recommend", wrong)
    said = str(caught.value)
    assert said.startswith("recommend()")
    assert (got.status, got.sentence) == (422, said.replace("recommend()", "/recommend", 1))


@pytest.mark.parametrize(
    ("path", "wrong", "words"),
    [
        ("/recommend", {"attributes": DRY, "topn": 3}, ["found the key 'topn'", "'top_n'", "did you mean 'top_n'?"]),
        ("/recommend", [DRY], ["/recommend: found [", "allowed: an object with some of 'attributes'"]),
        ("/recommend", {"attributes": DRY, "explain": "yes"}, ["explain: found 'yes'; allowed: true or false"]),
        ("/recommend", {"attributes": DRY, "top_n": 101}, ["top_n: found 101; allowed: a whole number from 1 to 100"]),
        ("/recommend", {"attributes": DRY, "age": 30}, ["found the key 'age'"]),
        ("/similar", {}, ["/similar: found nothing; allowed: product_id, which is needed"]),
        ("/similar", {"product_id": "p99"}, ["found 'p99'; allowed: ids of products"]),
        ("/similar", {"product_id": ["p1"]}, ["found ['p1']; allowed: ids of products"]),
        ("/similar", {"product_id": "p1", "explain": True}, ["found the key 'explain'"]),
        ("/explain", {"product_id": "p1", "attributes": {}}, ["/explain, skin_type: found nothing; allowed:"]),
        ("/explain", {"product_id": "p1", "attributes": {"agee": 3}}, ["/explain: found the attribute 'agee'"]),
        ("/similar", {"product_id": "pp1"}, ["/similar: found 'pp1'", "; did you mean 'p1'?"]),
        ("/customers-like", {"product_id": "p99"}, ["/customers-like: found 'p99'"]),
        (
            "/recommend",
            {"customer_id": "u1"},
            ["/recommend, customer_id: found 'u1'", "without --dataset or --purchase"],
        ),
        ("/explain", {"product_id": "p1", "customer_id": "u1"}, ["/explain, customer_id: found 'u1'; allowed: none"]),
        ("/customers-like", {"product_id": None}, ["product_id, which is needed"]),
        ("/recommend/batch", {}, ["customers, which is needed"]),
        ("/recommend/batch", {"customers": DRY}, ["customers: found {", "a list of objects"]),
        ("/recommend/batch", {"customers": [1]}, ["customers: found [1]; allowed: a list of objects"]),
        ("/recommend/batch", {"customers": [DRY] * 9}, ["found '9 customers'; allowed: 8 at once"]),
        ("/recommend/batch", {"customers": [DRY, {**DRY, "Age": 3}]}, ["row 2: found the key 'Age'", "mean 'age'?"]),
        ("/recommend/batch", {"customers": [DRY, {**DRY, "age": 0}]}, ["/recommend/batch, row 2, age: found 0"]),
        ("/recommend/batch", {"customers": [DRY], "purchased_products": []}, ["found 0 lists"]),
    ],
    ids=str,
)
def test_what_python_would_not_ask(app, path, wrong, words):
    got = ask(app, path, wrong)
    assert got.status == 422
    for word in words:
        assert word in got.sentence


# Python 3.13 reads lists in each other of any depth that a request may have.
TOO_DEEP = "lists or objects too deep in each other" if sys.version_info < (3, 13) else "no JSON at line 1, column 2000"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b" ", "found nothing"),
        (b"{", "found no JSON at line 1, column 2"),
        (b'{"a":\n1 2}', "found no JSON at line 2, column 3"),
        (b"{\xff\xfe", "found no UTF-8: byte 2 is none"),
        (b"[" * 1999, TOO_DEEP),
        (b'{"a": %s}' % (b"1" * 1500 * 4), "found a number of too many digits"),
        ("{}".encode("utf-16"), "found no UTF-8: byte 1 is none"),
    ],
    ids=lambda body: repr(body[:9]),
)
def test_no_json(mall_run, body, found):
    app = application(mall_run, body=7000)
    got = ask(app, "/recommend", body, method="POST")
    assert got.status == 400
    assert re.fullmatch("body: found .+; allowed: JSON in UTF-8", got.sentence)
    assert found in got.sentence


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_lacks(app, word):
    """It is not taken for an attribute that is not stated."""
    body = json.dumps({"attributes": DRY}).replace("32", word).encode()
    got = ask(app, "/recommend", body, method="POST")
    assert got.status == 422
    assert got.sentence.startswith(f"/recommend: found {word}, which JSON lacks; allowed: a number, or null")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 415),
        ([("content-type", "text/plain")], 415),
        ([("content-type", "application/x-www-form-urlencoded")], 415),
        ([("content-type", "application/json; charset=latin-1")], 415),
        ([*JSON, ("content-encoding", "gzip")], 415),
        ([("content-type", "Application/JSON; charset=UTF-8")], 200),
    ],
    ids=str,
)
def test_the_kind_of_content(app, headers, status):
    assert ask(app, "/recommend", {"attributes": DRY}, headers=headers).status == status


def test_what_is_too_large(app):
    """By what is announced, and by what comes."""
    whole = json.dumps({"attributes": DRY}).encode()
    for size, status in ((2000, 200), (2001, 413)):
        body = whole + b" " * (size - len(whole))
        assert ask(app, "/recommend", body, parts=7).status == status
        got = ask(app, "/recommend", body, headers=[*JSON, ("content-length", str(size))])
        assert got.status == status
    assert got.sentence == "body: found more bytes than are allowed: 2,000"


def test_paths_and_methods(app):
    assert ask(app, "/nowhere").status == 404
    assert "found '/nowhere'; allowed: '/recommend'" in ask(app, "/nowhere").sentence
    for path in CALLS:
        got = ask(app, path, method="GET")
        assert (got.status, got.headers["allow"]) == (405, "POST")
        words = shlex.split(got.sentence.removeprefix(f"{path}: found GET; allowed: POST, such as "))
        assert (words[:2], words[3]) == (["curl", "--json"], f"http://127.0.0.1:8000{path}")
        assert ask(app, path, words[2].encode(), method="POST").status == 200
    for path in ("/", "/health", "/metrics", "/openapi.json"):
        assert ask(app, path, {}, method="POST").headers["allow"] == "GET, HEAD"
        assert ask(app, path, method="HEAD").status == 200


@pytest.mark.parametrize(
    "said",
    ["shop.example:8080", "[::1]:9000", "127.0.0.1:8099", "evil';rm", ""],
    ids=["name", "v6", "v4", "no", "none"],
)
def test_a_hint_names_the_host_that_was_asked(app, said):
    got = ask(app, "/similar", method="GET", headers=[*JSON, ("host", said)])
    right = said if said and "'" not in said else "127.0.0.1:8000"
    assert got.sentence.endswith(f" http://{right}/similar")


def test_attributes_outside_attributes_are_answered_by_the_right_body(app):
    sentence = ask(app, "/recommend", {**DRY, "top_n": 2}).sentence
    found, _, right = sentence.partition("allowed: in them, as ")
    assert found == "/recommend: found the key 'age' beside attributes; "
    assert json.loads(right) == {"attributes": DRY, "top_n": 2}
    assert ask(app, "/recommend", json.loads(right)).status == 200


def test_a_fault_of_the_service_is_told_in_its_log_alone(app, monkeypatch, caplog):
    monkeypatch.setattr(Recommender, "recommend", lambda *_, **__: 1 / 0)
    got = ask(app, "/recommend", {"attributes": DRY})
    assert (got.status, "division" in got.sentence) == (500, False)
    assert "ZeroDivisionError" in caplog.text


def test_the_token(mall_run):
    app = application(mall_run, TOKEN)
    for value in (None, TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}0", "Bearer é"):
        headers = [*JSON, *([("authorization", value)] if value is not None else [])]
        for path in (*CALLS, "/", "/metrics", "/openapi.json", "/nowhere"):
            got = ask(app, path, {} if path in CALLS else None, headers=headers)
            assert (got.status, got.headers["www-authenticate"]) == (401, "Bearer")
            assert TOKEN not in got.sentence
        assert ask(app, "/health", headers=headers).status == 200
    for value in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        assert ask(app, "/recommend", {"attributes": DRY}, headers=[*JSON, ("authorization", value)]).status == 200


def test_metrics(mall_run, app):
    fresh = application(mall_run)
    for _ in range(3):
        ask(fresh, "/recommend", {"attributes": DRY})
    ask(fresh, "/recommend", {})
    ask(fresh, "/nowhere/{}")
    got = ask(fresh, "/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = got.body.decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert found['recsys_jax_requests_total{path="/recommend",status="200"}'] == "3"
    assert found['recsys_jax_requests_total{path="/recommend",status="422"}'] == "1"
    assert found['recsys_jax_requests_total{path="other",status="404"}'] == "1"
    assert found['recsys_jax_request_seconds_count{path="/recommend"}'] == "4"
    assert found['recsys_jax_request_seconds_bucket{path="/recommend",le="+Inf"}'] == "4"
    model = ask(fresh, "/health").json["model"]
    assert found[f'recsys_jax_model_info{{fingerprint="{model}"}}'] == "1"
    written = float(found["recsys_jax_model_written_timestamp_seconds"])
    assert written == pytest.approx((mall_run / "model.json").stat().st_mtime, abs=0.01)
    for line in text.splitlines():  # as the format wants it
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[^\"]*\"(,\w+=\"[^\"]*\")*\})? [\d.e+-]+", line), line
    counts = [int(value) for name, value in found.items() if 'bucket{path="/recommend"' in name]
    assert counts == sorted(counts)


def test_buckets_hold_what_took_no_longer():
    metrics = Metrics()
    for seconds in (0.0004, 0.0005, 0.3, 20.0):
        metrics.count("/similar", 200, seconds)
    found = re.findall(r'bucket\{path="/similar",le="(\S+)"\} (\d+)', metrics.text("x", 0.0))
    assert [(bound, int(count)) for bound, count in found if bound in ("0.00025", "0.0005", "0.25", "0.5", "+Inf")] == [
        ("0.00025", 0),
        ("0.0005", 2),
        ("0.25", 2),
        ("0.5", 3),
        ("+Inf", 4),
    ]


def test_the_report_or_what_can_be_asked(mall_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for path in mall_run.iterdir():
        (run / path.name).write_bytes(path.read_bytes())
    app = application(run)
    page = ask(app, "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "/customers-like" in page.body.decode()
    (run / "report.html").write_text("<p>Über</p>", encoding="utf-8")
    assert ask(app, "/").body.decode() == "<p>Über</p>"
    (run / "report.html").unlink()
    (run / "report.html").symlink_to("/etc/hostname")
    assert ask(app, "/").body == page.body


def test_health(app, mall_run):
    got = ask(app, "/health")
    assert got.json["status"] == "ready"
    assert got.headers["x-model"] == got.json["model"][:12]


@pytest.mark.parametrize("name", ["body", "rows", "top_n"])
def test_limits_are_numbers_from_1(name):
    with pytest.raises(InputError, match=f"{name}: found 0; allowed: 1 or more"):
        Limits(**{name: 0})


def test_a_long_request_does_not_run_where_others_wait(app, monkeypatch):
    """The event loop answers short ones itself: a thread costs more than they take."""
    import threading

    seen = []
    monkeypatch.setattr(Recommender, "recommend", lambda *_, **__: seen.append(threading.current_thread().name) or [])
    monkeypatch.setattr(
        Recommender, "recommend_batch", lambda *_, **__: seen.append(threading.current_thread().name) or []
    )
    monkeypatch.setattr("recsys_jax.service.app.SHORT", 500)
    ask(app, "/recommend", {"attributes": DRY})
    ask(app, "/recommend", {"attributes": DRY, "available": ["p1"] * 200})
    ask(app, "/recommend/batch", {"customers": [DRY]})
    assert [name.split("_")[0] for name in seen] == ["loop", "batch", "batch"]


def test_the_log_is_not_configured_by_the_import():
    assert not logging.getLogger("recsys_jax.service").handlers
