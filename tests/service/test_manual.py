"""What docs/serving.md shows is so."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from asgi import JSON, application, ask

from recsys_jax.service.calls import CALLS, Limits
from recsys_jax.service.metrics import Metrics
from recsys_jax.service.server import Settings

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.M | re.S)
CURLS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.startswith("curl ")]
TOKEN = "0123456789abcdef"


def asked(line):
    """The path, the body and the headers of a line of curl."""
    words = shlex.split(line.replace("$RECSYS_JAX_TOKEN", TOKEN))[1:]
    body, headers = None, []
    while len(words) > 1:
        option, value, *words = words
        assert option in ("--json", "-H")
        if option == "--json":
            body, headers = json.loads(value), [*headers, *JSON]
        else:
            name, _, text = value.partition(": ")
            headers.append((name.lower(), text))
    assert words[0].startswith("http://127.0.0.1:8000/")
    return words[0].removeprefix("http://127.0.0.1:8000"), body, headers


@pytest.fixture(scope="module")
def app(mall_run):
    return application(mall_run)


@pytest.mark.parametrize("line", CURLS)
def test_each_line_of_curl_is_answered(app, mall_run, line):
    path, body, headers = asked(line)
    found = application(mall_run, TOKEN) if "authorization" in dict(headers) else app
    assert ask(found, path, body, headers=headers).status == 200


def test_each_path_is_shown():
    assert {asked(line)[0] for line in CURLS} > set(CALLS)
    listed = {
        path: set(re.findall(r"`(\w+)`", rest))
        for path, rest in re.findall(r"^\| `POST (\S+)` \|.*\| (.*) \|$", TEXT, re.M)
    }
    assert set(listed) == set(CALLS)
    for path, call in CALLS.items():
        if path != "/recommend/batch":
            assert listed[path] == set(call.keys)


def test_the_answer_that_is_shown_has_the_keys_of_one(app):
    [shown] = [json.loads(block) for kind, block in BLOCKS if kind == "json"]
    path, body, _ = asked(CURLS[0])
    found = ask(app, path, body).json
    assert list(shown) == list(found)
    assert list(shown["products"][0]) == list(found["products"][0])


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


def test_the_javascript_runs(mall_run, tmp_path):
    """Against a page's stub of `fetch` that hands requests to the service."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed here")
    app = application(mall_run)
    person = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
    good = ask(app, "/recommend", {"attributes": person, "top_n": 2})
    bad = ask(app, "/recommend", {"attributes": {}})
    [code] = [block for kind, block in BLOCKS if kind == "js"]
    stub = f"""
const answers = {{ 2: [200, {good.body.decode()}], 3: [{bad.status}, {bad.body.decode()}] }};
globalThis.fetch = async (url, {{ method, headers, body }}) => {{
  if (url !== "http://127.0.0.1:8000/recommend" || method !== "POST") throw new Error(url);
  if (headers["content-type"] !== "application/json") throw new Error("kind");
  const [status, answer] = answers[JSON.parse(body).top_n];
  return {{ ok: status === 200, json: async () => answer }};
}};
{code}
(async () => {{
  const found = await recommend({json.dumps(person)}, {{ top_n: 2 }});
  let said = "";
  try {{ await recommend({{}}, {{ top_n: 3 }}); }} catch (error) {{ said = error.message; }}
  console.log(JSON.stringify([found, said]));
}})();
"""
    (tmp_path / "page.js").write_text(stub, encoding="utf-8")
    done = subprocess.run(["node", str(tmp_path / "page.js")], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [good.json["products"], bad.sentence]
