import pytest

from embellama.cli.tables import in_units, show_fields, show_table, tensor_summary


def test_columns_line_up(capsys):
    show_table(("NAME", "SIZE"), [("a", "1"), ("longer", "1000")], right="SIZE")
    assert capsys.readouterr().out == "NAME    SIZE\na          1\nlonger  1000\n"


def test_a_table_of_nothing_is_its_headings(capsys):
    show_table(("NAME", "SIZE"), [])
    assert capsys.readouterr().out == "NAME  SIZE\n"


def test_fields_without_a_value_are_left_out(capsys):
    show_fields([("name", "x"), ("parts", None), ("size", 0)])
    assert capsys.readouterr().out == "name  x\nsize  0\n"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (46_223_520, "46.2 MB"),
     (25_280_000_000, "25.28 GB"), (2_000_000_000_000, "2000.00 GB")],
)  # fmt: skip
def test_sizes_have_a_fitting_unit(size_bytes, text):
    assert in_units(size_bytes) == text


def test_tensor_types_come_by_number():
    assert tensor_summary({"Q6_K": 2, "F32": 64, "Q5_0": 28}) == "64 F32, 28 Q5_0, 2 Q6_K"
