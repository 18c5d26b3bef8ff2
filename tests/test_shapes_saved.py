"""``evalkit sample``: a shape in a file, only because it is asked for."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from evalkit import simulate, study
from evalkit.cli import app
from evalkit.errors import UsageError
from evalkit.sample.shapes.save import check_place, numbers


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    simulate.write(folder / "data", simulate.draw(simulate.SMALL, 600, 1))
    (folder / "study.toml").write_text(study.template("en"), "utf-8")
    return folder


def call(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)])


def test_patterns_and_episodes_add_up(town):
    files = {}
    for shape in ("patterns", "episodes"):
        files[shape] = town / f"{shape}.parquet"
        asked = (
            "--shape",
            shape,
            "--out",
            files[shape],
            "--since-start",
            "12,6",
            "--since-entry",
            "3",
            "--columns",
            "sex",
        )
        done = call(town, *asked, "--lang", "en")
        assert done.exit_code == 0, done.output
        assert str(files[shape]) in done.stdout and "single persons" in done.stderr
        assert ("fewer than 10 persons" in done.stderr) == (shape == "patterns")
    cells, rows = pd.read_parquet(files["patterns"]), pd.read_parquet(files["episodes"])
    assert cells["count"].sum() == len(rows) and {"person", "cluster"}.isdisjoint(cells.columns)
    assert (cells["stop"] - cells["start"]).mul(cells["count"]).sum() == (rows["stop"] - rows["start"]).sum()
    assert rows.person.nunique() == cells.drop_duplicates("pattern")["count"].sum()
    assert not rows.person.isin(cells.columns).any()


def test_panel_as_csv(town):
    out = town / "panel.csv"
    done = call(
        town, "--shape", "panel", "--out", out, "--unit", "education", "--period", "year", "--outcome", "exit:any", "-q"
    )
    assert done.exit_code == 0, done.output
    assert not done.stderr
    made = pd.read_csv(out)
    assert list(made) == ["unit", "period", "begins", "outcome", "first_treated", "cluster", "weight"]
    assert made["outcome"].between(0, 1).all() and len(made) > 6


@pytest.mark.parametrize(
    ("name", "code"), [("a.xlsx", "shapes.extension"), ("results/a.csv", "shapes.in_results"), ("b.csv", "cli.exists")]
)
def test_places_that_are_refused(tmp_path, name, code):
    (tmp_path / "b.csv").write_text("x")
    with pytest.raises(UsageError) as caught:
        check_place(tmp_path / name)
    assert caught.value.faults[0].code == code


def test_beside_results_nothing_is_written(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        check_place(Path(tmp_path) / "patterns.parquet")
    assert caught.value.faults[0].code == "shapes.in_results"


def test_numbers():
    assert numbers("12, 3,12") == (3, 12) and numbers("") == ()
    for text in ("a", "0", "-3", "1.5", "601"):
        with pytest.raises(UsageError):
            numbers(text)


def test_a_ready_table_has_no_shapes(tmp_path):
    (tmp_path / "study.toml").write_text(
        'schema = 1\nseed = 1\nlanguages = ["en"]\ntitle = { en = "x" }\n[table]\nfile = "t.csv"\nunit = "p"\n'
        'treatment = "d"\noutcomes = { y = ["y1"] }\n[treatment]\ninstrument = "d"\ndesign = "randomised"\n'
        '[[outcome]]\nname = "y"\nkind = "event"\nprimary = true\n[[analysis]]\nid = "a"\nmethod = "experiment"\n'
    )
    done = call(tmp_path, "--shape", "panel", "--out", tmp_path / "p.csv")
    assert isinstance(done.exception, UsageError)
    assert done.exception.faults[0].code == "shapes.no_register"
