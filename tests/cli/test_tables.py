"""What is printed fits into its lines."""

from pathlib import Path

from recsys_jax.console.tables import say, say_notes


def test_notes_are_one_line(capsys):
    long = "shop/customers.csv: 3 of 60 rows set aside and not used; the first, row 3, age: found -3; allowed: a number"
    for notes in ([long], [long, "another"], ["short", "another"], ["short"], []):
        say_notes(notes, Path("shop"))
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == bool(notes)
        assert all(
            line.startswith(("note: customers.csv: 3 of 60", "note: short")) and len(line) < 80 for line in lines
        )
        assert [line.endswith("(and 1 more in report.md)") for line in lines] == [True] * (len(notes) > 1) + [False] * (
            len(notes) == 1
        )


def test_a_sentence_ends_where_its_lines_do(capsys):
    say("word " * 100, lines=2)
    first, second = capsys.readouterr().out.splitlines()
    assert max(len(first), len(second)) < 80
    assert second.endswith(" …")
