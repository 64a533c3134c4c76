"""The main job, from made reviews to recommendations."""

import json
from pathlib import Path

import pytest
from command_line import done

MALL = Path(__file__).parents[2] / "data" / "amoremall"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The main job with an encoder that needs no model."""
    cwd = tmp_path_factory.mktemp("job")
    return cwd, done("run", MALL, "--encoder", "lsa", cwd=cwd)


def test_the_main_job(job):
    cwd, result = job
    out = cwd / "runs" / "amoremall"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
        "PERSONA_DEFINITION.md",
        "customers.json",
        "embedding_space.png",
        "loss.csv",
        "model.json",
        next(out.glob("model-*.safetensors")).name,
        "persona_distribution.png",
        "persona_labels.csv",
        "personas/arrays.npz",
        "personas/model.json",
        *(
            f"{protocol}/{name}"
            for protocol in ("in-sample", "cross-validation")
            for name in ("metrics.json", "results.csv", "results_by_persona.png")
        ),
    }
    for name in names:
        if name.endswith(".png"):
            assert (out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if "│" in line or "─" in line or " 0." in line)
    # It ends with where the files are and what to try next, after five recommendations of three products.
    assert result.stdout.count("product  ") == 5
    done(*result.next(), cwd=cwd)
    assert result.next()[:2] == ["train", str(MALL)]


def test_the_files_say_what_they_are(job):
    cwd, _ = job
    out = cwd / "runs" / "amoremall"
    customers = json.loads((out / "customers.json").read_text("utf-8"))
    assert len(customers) == 277
    assert set(customers[0]) >= {
        "user_id",
        "persona_id",
        "persona_name",
        "age",
        "gender",
        "skin_type",
        "skin_concern",
        "purchased_product_id",
        "product_category",
    }
    assert (out / "loss.csv").read_text().splitlines()[0] == "step,loss"
    results = (out / "cross-validation" / "results.csv").read_text("utf-8").splitlines()
    assert len(results) == 278
    metrics = json.loads((out / "cross-validation" / "metrics.json").read_text("utf-8"))
    assert metrics["protocol"] == "cross-validation, 5 folds over customers"
    rivals = {
        "random",
        "popularity",
        "inverse popularity",
        "popularity per persona",
        "naive Bayes",
        "logistic regression",
    }
    assert set(metrics["methods"]) == set(metrics["leak-free"]["methods"])
    assert set(metrics["methods"]) == {"model", "model, attributes shuffled", *rivals}
    assert metrics["queries"]["all"] == metrics["leak-free"]["queries"]["all"] == 277
    # Each review's writer is asked once, so the leak-free persona may differ, the purchase not.
    assert any("derived from the review" in sentence for sentence in metrics["verdicts"])
