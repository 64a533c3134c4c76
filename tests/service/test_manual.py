"""What docs/serving.md tells is so; tests/test_manuals.py runs what it shows."""

import re
from pathlib import Path

from recsys_jax.service.calls import CALLS, Limits
from recsys_jax.service.metrics import Metrics
from recsys_jax.service.server import Settings

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")


def test_each_path_is_shown():
    assert set(re.findall(r"^curl .*:8000(/\S+)$", TEXT, re.M)) > set(CALLS)
    listed = {
        path: set(re.findall(r"`(\w+)`", rest))
        for path, rest in re.findall(r"^\| `POST (\S+)` \|.*\| (.*) \|$", TEXT, re.M)
    }
    assert set(listed) == set(CALLS)
    for path, call in CALLS.items():
        if path != "/recommend/batch":
            assert listed[path] == set(call.keys)


def test_the_defaults_that_are_told():
    limits = Limits()
    for name, value in (("body", limits.body), ("rows", limits.rows), ("top-n", limits.top_n)):
        assert re.search(rf"`--max-{name}`[^(]*\({value:,}\)", TEXT), name
    assert f"`--drain` seconds ({Settings.drain:g})" in TEXT


def test_each_metric_is_told():
    metrics = Metrics()
    metrics.count("/recommend", 200, 0.1)
    names = set(re.findall(r"^# TYPE (\w+)", metrics.text("x", 0.0), flags=re.M))
    assert names == set(re.findall(r"`(recsys_jax_\w+)(?:\{\w+(?:, \w+)*\})?`", TEXT.partition("## Metrics")[2]))
