"""A shop whose numbers and dates are written as people write them, from `init` to recommendations."""

import csv
import tomllib

import numpy as np
import pytest
from command_line import done, run

from recsys_jax import Recommender
from recsys_jax.data.schema import Schema
from recsys_jax.personas.profiles import ages
from recsys_jax.schema_inference.columns import _words
from recsys_jax.service.calls import Limits, answer

TRAIN = "wide", "--own-l2", 10, "--attribute-l2", 10, "--factor-l2", "inf"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Twelve products, forty members and their orders, in Korean, and what `init` said of them."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("shops") / "shop"
    folder.mkdir()
    tables = {
        "상품": [{"상품코드": f"P{n:02}", "상품명": f"차 {n}", "분류": "홍차녹차"[2 * (n % 2) :][:2],
                "판매가": f"{7 + n},000{'원' * (n % 3 > 0)}"} for n in range(12)],
        "회원": [{"회원번호": f"m{n}", "나이": f"{20 + n}{'세' * (n % 4 > 0)}", "성별": "남여"[n % 2]}
                for n in range(40)],
        "주문": [{"주문번호": f"Z{9000 - 7 * n}", "회원번호": f"m{n % 40}", "상품코드": f"P{rng.integers(12):02}",
                "주문일": f"2025. {1 + n % 12}. {1 + n % 28}", "결제수단": ["카드", "현금", "포인트"][n % 3]}
               for n in range(200)],
    }  # fmt: skip
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder, done("init", folder).stdout


@pytest.fixture(scope="module")
def trained(shop):
    folder = shop[0]
    done("train", folder, *TRAIN, "--run", "run", cwd=folder.parent)
    return folder.parent / "run"


def test_what_is_written_so_is_kept(shop):
    folder, said = shop
    found = tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    price = next(one for one in found["products"]["features"] if one["name"] == "판매가")
    age = next(one for one in found["customers"]["features"] if one["name"] == "나이")
    assert (price["kind"], price["units"], price["thousands"]) == ("numeric", ["원"], ",")
    assert (age["kind"], age["min"], age["max"]) == ("numeric", 1, 120)
    assert {"세", "살", "대"} < {*age["units"]}  # one writes them so in a request
    assert found["products"]["price"] == "판매가"
    assert found["interactions"]["date"] == "주문일"
    assert "left out: 결제수단: it is said of the purchase; towers learn of customers and products" in said
    assert "left out: 주문번호: 200 values in 200 rows, most of them once" in said


def test_every_way_of_asking_takes_the_unit(trained, tmp_path):
    rec = Recommender.load(trained)
    expected = rec.recommend(나이=46, 성별="여")
    assert rec.recommend(나이="46세", 성별="여") == rec.recommend(나이="46", 성별="여") == expected
    asked = {"attributes": {"나이": "46 세", "성별": "여"}}
    assert expected in answer(rec, "/recommend", asked, Limits()).values()
    plain, written = (done("recommend", trained, f"나이={one}", "성별=여", "--json").stdout for one in ("46", "46세"))
    assert plain == written
    refused = run("recommend", trained, "나이=46년")
    assert refused.returncode == 2
    assert "나이: found '46년'; allowed: a number from 1 to 120, also with 세" in refused.stderr

    outs = []
    for one in ("46", "46세"):
        path = tmp_path / f"{one}.csv"
        path.write_text(f"회원번호,나이,성별\na,{one},여\n", encoding="utf-8")
        done("score", path, tmp_path / f"{one}.out.csv", "--run", trained)
        outs.append((tmp_path / f"{one}.out.csv").read_text("utf-8-sig"))
    assert outs[0] == outs[1]


def test_a_price_that_is_a_text_is_still_shown(tmp_path, shop):
    for file in shop[0].glob("*.csv"):
        content = file.read_text("utf-8").replace("000원", "000원 (세일)")
        (tmp_path / file.name).write_text(content, encoding="utf-8")
    done("init", tmp_path)
    found = tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8"))
    assert found["products"]["price"] == "판매가"


@pytest.mark.parametrize(("language", "group"), [("ko", 0), ("ja", 1), ("en", 2)])
def test_units_of_ages_mean_what_profiles_mean(language, group):
    feature = {"name": "age", "kind": "numeric", "unknown": "error", "missing": "error"}
    feature["units"] = _words()["units"][group]
    part = {"file": "x.csv", "id": "id", "features": [feature]}
    schema = Schema.parse({"name": "x", "products": part, "customers": part | {"purchases": "bought"}}, "x")
    for unit in feature["units"]:
        for age in (20, 70):
            said = [
                one.value(match)
                for one in ages(language, "profile")
                if (match := one.pattern.fullmatch(f"{age}{unit}"))
            ]
            assert said[0] == schema.customers.features[0].number(f"{age}{unit}")
