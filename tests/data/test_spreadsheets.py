"""Tables as spreadsheets write them: other separators, decimal commas, UTF-16, CP949, and byte order marks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import done
from hypothesis import given
from hypothesis import strategies as st

from recsys_jax import InputError, load_dataset
from recsys_jax.data.tabular.readers import read_table

KOREAN = "read as CP949 (Korean Windows), as it is not UTF-8"


def put(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_header_says_what_separates(tmp_path, sign):
    text = 'id,"the, name; of|it\tall",price\n1,"a, b; c|d\te",2.5\n2,"two\nlines",\n'
    quoted = text.split('"')
    quoted[::2] = [part.replace(",", sign) for part in quoted[::2]]
    table = read_table(put(tmp_path, '"'.join(quoted)))
    assert table.columns == {
        "id": ["1", "2"],
        "the, name; of|it\tall": ["a, b; c|d\te", "two\nlines"],
        "price": ["2.5", None],
    }
    assert table.validation.notes == []


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("id\na;b\nc|d\n", {"id": ["a;b", "c|d"]}),  # the body has no say
        ("id,a;b\n1,2\n", {"id": ["1"], "a;b": ["2"]}),
        ("id;a|b\n1\n", {"id;a|b": ["1"]}),
        ('"id;a"\n1\n', {"id;a": ["1"]}),
        ('"a ""b"", c";d\r\n1;2\r\n', {'a "b", c': ["1"], "d": ["2"]}),
        ('5" screen;id\n1;"a,b"\n', {'5" screen': ["1"], "id": ["a,b"]}),
        ("id;a\r1;2\r", {"id": ["1"], "a": ["2"]}),
        ('id;"a\nb"\n1;2\n', {"id": ["1"], "a\nb": ["2"]}),
    ],
)
def test_headers(tmp_path, content, columns):
    assert read_table(put(tmp_path, content)).columns == columns


def test_tsv_is_separated_by_tabs_whatever_else_stands_there(tmp_path):
    assert read_table(put(tmp_path, "id\ta, b;c\n1\t2,5\n", "t.TSV")).columns == {"id": ["1"], "a, b;c": ["2,5"]}
    with pytest.raises(InputError, match="found an empty file; allowed: values separated by tabs"):
        read_table(put(tmp_path, "", "t.tsv"))


def test_decimal_commas_where_semicolons_separate(tmp_path):
    table = read_table(put(tmp_path, "id;price;change\n1;45,38;-0,5\n2;9;12\n3;;1,25\n4;1200,5;\n"))
    assert table.columns["price"] == ["45.38", "9", None, "1200.5"]
    assert table.columns["change"] == ["-0.5", "12", "1.25", None]
    assert table.validation.notes == [f"{tmp_path / 't.csv'}: read with decimal commas: price, change"]


def test_points_between_thousands_where_commas_are_decimal(tmp_path):
    table = read_table(put(tmp_path, "id;Preis\n1;1.160,85\n2;45,9\n3;-1.234.567\n4;1.299\n5;980,00\n"))
    assert table.columns["Preis"] == ["1160.85", "45.9", "-1234567", "1299", "980.00"]
    assert table.validation.notes == [f"{tmp_path / 't.csv'}: read with decimal commas: Preis"]


@pytest.mark.parametrize(
    "cells",
    [
        ["12,5", "about 9"],  # of which a part is no number
        ["12,5", "1.29,00"],
        ["12,5", "1.5"],
        ["12,5", "0.299"],
        ["1.160", "2.500"],  # as above
        ["1,2,3", "4,5"],  # lists
        ["01,02", "03"],
        ["1, 25", "4"],
        ["1,299", "15,900"],  # thousands, or three decimal places
        ["12", "9"],
        ["", ""],
    ],
)
def test_other_commas_stay(tmp_path, cells):
    table = read_table(put(tmp_path, "".join(f"{one}\n" for one in ["id;x", *(f"1;{cell}" for cell in cells)])))
    assert table.columns["x"] == [cell or None for cell in cells]
    assert table.validation.notes == []


@pytest.mark.parametrize("sign", [",", "\t", "|"])
def test_commas_in_other_files_are_no_decimals(tmp_path, sign):
    assert read_table(put(tmp_path, f'id{sign}x\n1{sign}"45,38"\n')).columns["x"] == ["45,38"]


SHEET = "id,이름,memo\n1,수분 크림,café\n2,쿠션,\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl"])
def test_the_byte_order_mark_says_the_encoding(tmp_path, encoding, name):
    rows = [{"id": "1", "이름": "수분 크림", "memo": "café"}, {"id": "2", "이름": "쿠션", "memo": None}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = {"csv": SHEET, "json": f"[{','.join(lines)}]", "jsonl": "\n".join(lines)}[name.split(".")[1]]
    marked = f"\ufeff{text}" if encoding[-3:] in ("-le", "-be") else text
    table = read_table(put(tmp_path, marked.encode(encoding), name))
    assert [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)] == rows
    assert table.encoding == encoding.removesuffix("-le").removesuffix("-be")
    assert table.validation.notes == []


@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_cp949_is_read_and_told(tmp_path, name):
    text = "상품번호,이름\nT1,수분 크림\nT2,쿠션\n"
    if name == "t.json":
        rows = [{"상품번호": "T1", "이름": "수분 크림"}, {"상품번호": "T2", "이름": "쿠션"}]
        text = json.dumps(rows, ensure_ascii=False)
    table = read_table(put(tmp_path, text.encode("cp949"), name))
    assert table.columns == {"상품번호": ["T1", "T2"], "이름": ["수분 크림", "쿠션"]}
    assert table.validation.notes == [f"{tmp_path / name}: {KOREAN}"]


def test_a_row_set_aside_is_told_behind_the_remark(tmp_path):
    text = "상품번호,이름\n" + "T1,수분 크림\n" * 20 + "T2\n"
    first, second = read_table(put(tmp_path, text.encode("cp949"))).validation.notes
    assert first.endswith(KOREAN)
    assert "1 of 21 rows set aside" in second


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id,ä,ö\n1,ü,ß\n", "cp1252"),  # letters that stand alone
        ("id,Name\n1,Käse für Müller\n", "cp437"),
        ("id,Name\n1,Käse für Müller\n", "mac-roman"),
        ("id,Nazwa\n1,Świeże łąki\n2,Pięć róż\n", "cp1250"),
        ("id,jméno\n1,Příliš žluťoučký kůň\n2,dveře\n", "cp1250"),
        ("id,isim\n1,Güneş ışığı\n", "cp1254"),
        ("είδος,τιμή\nκρέμα προσώπου SPF50,1\n", "cp1253"),
        ("товар,цена\nКрем SPF50,1\nи,2\n", "koi8-r"),
        ("товар,цена\nКрем для лица,1\n", "cp1251"),
        ("商品,価格\n保湿クリーム,1\n", "cp932"),
        ("商品,価格\n保湿クリーム,1\n", "euc_jp"),
        ("编号,名称,品牌\n1,保湿面霜,自然堂\n2,口红,完美日记\n", "gbk"),
        ("編號,名稱\n1,保濕面霜\n", "big5"),
        ("สินค้า,ราคา\nครีม,1\n", "cp874"),
        ("id,이름\n1,쿠션\n", "utf-16-le"),  # without its mark
    ],
)
def test_other_encodings_are_refused(tmp_path, text, encoding):
    with pytest.raises(InputError, match=r"t\.csv(, line 1|, line 2|: found a NUL).*"):
        read_table(put(tmp_path, text.encode(encoding)))


@pytest.mark.parametrize(
    "text",
    [
        "id;Name\n1;Äpfel für Müller\n2;Öl\n3;Weißer „Tee“ – 5 €\n4;Maß\n",
        "id,nom\n1,Thé Crêpe\n2,L’Oréal à la crème « fraîche »\n3,Œuvre\n",
        "id,nombre\n1,Champú para niños\n2,Árbol\n3,¿Cuál?\n",
        "id,navn\n1,Rødgrød med fløde\n2,Smörgås\n3,Æbleskiver\n",
        "id,price\n1,5 €\n",
    ],
)
def test_cp1252_is_read_and_told(tmp_path, text):
    """As Excel saves "CSV" in Western Europe."""
    found, plain = read_table(put(tmp_path, text.encode("cp1252"))), read_table(put(tmp_path, text, "plain.csv"))
    assert found.columns == plain.columns
    assert found.encoding == "cp1252"
    note = "read as CP1252 (Windows in Western Europe), as it is not UTF-8"
    assert found.validation.notes == [f"{tmp_path / 't.csv'}: {note}"]


def test_a_byte_that_is_not_utf_8_is_told_by_its_line(tmp_path):
    with pytest.raises(InputError) as told:
        read_table(put(tmp_path, "id,имя\n1,Ян\n".encode() + b"2,ab\xff\n"))
    says = 'the byte 0xff is not UTF-8; save the file as UTF-8, in Excel by "Save as", "CSV UTF-8"'
    assert str(told.value) == f"{tmp_path / 't.csv'}, line 3, character 5: {says}"


@given(st.lists(st.sampled_from(["수분", "크림", "a b", "12", "x;y", 'q"q', "", "두\n줄"]), min_size=4, max_size=4))
def test_all_ways_of_writing_say_the_same(tmp_path_factory, cells):
    folder = tmp_path_factory.getbasetemp()
    rows = [["번호", "이름"], ["1", cells[0]], ["2", cells[1]], ["3", cells[2]], ["4", cells[3]]]
    found = [read_table(put(folder, content)).columns for content in (write(rows) for write in WAYS.values())]
    assert found == [found[0]] * len(found)
    assert found[0]["번호"] == ["1", "2", "3", "4"]


def quoted(sign: str) -> Callable[[list[list[str]]], str]:
    return lambda rows: "".join(
        sign.join('"' + cell.replace('"', '""') + '"' if set(cell) & {*'";,\t\n'} else cell for cell in row) + "\r\n"
        for row in rows
    )


WAYS: dict[str, Callable[[list[list[str]]], bytes]] = {
    "commas in UTF-8": lambda rows: quoted(",")(rows).encode(),
    "semicolons behind a mark": lambda rows: quoted(";")(rows).encode("utf-8-sig"),
    "tabs in UTF-16": lambda rows: quoted("\t")(rows).encode("utf-16"),
    "commas in CP949": lambda rows: quoted(",")(rows).encode("cp949"),
}


def shop() -> dict[str, list[list[str]]]:
    """A small shop whose purchases follow tastes, with prices that have cents."""
    kinds = ["녹차", "홍차", "허브차"]
    goods = [[f"T{n:02}", f"차, {n}호", kinds[n % 3], f"{3 + n / 4:.2f}"] for n in range(12)]
    people = [[f"c{n:03}", str(20 + n % 50), kinds[n % 3]] for n in range(60)]
    bought = [[f"c{n % 60:03}", f"T{(n * 7 + n // 60 * 3) % 12:02}"] for n in range(180)]
    return {
        "products": [["상품번호", "상품명", "분류", "가격"], *goods],
        "customers": [["손님번호", "나이", "취향"], *people],
        "purchases": [["손님번호", "상품번호"], *bought],
    }


def test_a_shop_is_the_same_however_a_spreadsheet_wrote_it(tmp_path):
    """`init`, `train` and `score`: ids, attributes, and what is recommended; what was read otherwise is told."""
    datasets, lists, said = {}, {}, {}
    for way, write in WAYS.items():
        folder = tmp_path / way / "shop"
        folder.mkdir(parents=True)
        for name, rows in shop().items():
            comma = [[cell.replace(".", ",") for cell in row] for row in rows] if "semicolons" in way else rows
            put(folder, write(comma), f"{name}.csv")
        said[way] = done("init", "shop", "--yes", cwd=tmp_path / way).stdout
        words = ("--own-l2", 10, "--attribute-l2", 10, "--factor-l2", "inf")
        trained = done("train", "shop", "wide", *words, cwd=tmp_path / way).stdout
        score = ("score", "shop/customers.csv", "out.csv", "--run", "runs/shop", "--names", "--dataset", "shop")
        scored = done(*score, cwd=tmp_path / way).stdout
        lists[way] = (tmp_path / way / "out.csv").read_bytes()
        datasets[way] = load_dataset(folder)
        assert trained.count(KOREAN) == (3 if "CP949" in way else 0)
        assert scored.count(f"shop/customers.csv: {KOREAN}") == ("CP949" in way)
    one, *others = datasets.values()
    tomls = [(tmp_path / way / "shop" / "dataset.toml").read_text("utf-8") for way in WAYS]
    assert tomls == tomls[:1] * 4
    assert one.product_ids[:2] == ["T00", "T01"]
    for other in others:
        assert (other.product_ids, other.customer_ids) == (one.product_ids, one.customer_ids)
        assert other.fingerprint == one.fingerprint
        for table, own in ((other.products, one.products), (other.customers, one.customers)):
            assert dict(table.columns) == dict(own.columns)
    plain, *marked = lists.values()
    assert "녹차" in plain.decode()
    assert marked == [b"\xef\xbb\xbf" + plain] * 3  # so that Excel knows it as UTF-8
    assert [KOREAN in text for text in said.values()] == [False, False, False, True]
    assert ["read with decimal commas: 가격" in text for text in said.values()] == [False, True, False, False]
