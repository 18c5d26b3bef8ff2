"""Code lists that a user edits: what they replace, and every fault in them at once."""

from __future__ import annotations

import pytest
from layouts_example import LAYOUTS, write_layouts
from typer.testing import CliRunner

from evalkit import layouts, study
from evalkit.cli import app
from evalkit.errors import StudyError, UsageError


def codes(error: StudyError) -> list[str]:
    return [fault.code for fault in error.faults]


LIST = "code;term;label_nl;label_en;source;verified;note\n"


def test_own_lists_replace_ours(tmp_path):
    path = write_layouts(tmp_path, LAYOUTS.replace('folder = "."', 'folder = "."\ncodelists = "lijsten"'))
    (tmp_path / "lijsten").mkdir()
    own = (
        "\ufeff"
        + LIST.replace(";", ",")
        + '\n29,placement,"Plek, met geld",Placement,our system,yes,\n30,coach,,,x,,\n,spare,,,,,\n'
    )
    (tmp_path / "lijsten" / "srg_type.csv").write_text(own, "utf-8")
    with pytest.raises(StudyError) as caught:
        study.read(path)
    assert codes(caught.value) == ["study.not_allowed"]  # the instrument has another name now
    path.write_text(path.read_text().replace('"other_workplace"', '"placement"'))
    made = study.read(path)
    assert made.data.episodes.codes["type"] == {"placement": ("29",), "coach": ("30",)}
    assert made.labels["nl"]["placement"] == "Plek, met geld" and "coach" not in made.labels["nl"]
    (item,) = made.filled[1].codes
    assert (item.own, item.count, item.unverified) == (True, 2, 1)
    assert made.data.benefits.codes["scheme"]["ioaw"]  # the other lists are ours


SPOILT = {
    "wrong header": ("kode;term\n29;x\n", {"layouts.list_header": {}}),
    "no header": ("29;placement;;;;yes;\n", {"layouts.list_header": {}}),
    "empty": ("", {"layouts.list_header": {}}),
    "a header alone": (LIST, {"layouts.list_without_codes": {}}),
    "no codes": (LIST + ";x;;;;;\n", {"layouts.list_without_codes": {}}),
    "open quote": (LIST + '29;"x;;;;;\n', {"layouts.list_unreadable": {}}),
    "code twice": (
        LIST + "29;a;;;;;\n30;b;;;;;\n29;c;;;;;\n",
        {"layouts.list_code_twice": {"codes": "29", "lines": "2, 4"}},
    ),
    "everything": (
        LIST + "29;;;;;;\n30;a b;;;;;\n31;c;;;;maybe;\n32;d;;;;;;;\n33;e;;;;;\n33;e;;;;;\n",
        {
            "layouts.list_term_empty": {"lines": "2"},
            "layouts.list_term_name": {"lines": "3"},
            "layouts.list_verified": {"lines": "4"},
            "layouts.list_ragged": {"lines": "5"},
            "layouts.list_code_twice": {"codes": "33", "lines": "6, 7"},
        },
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_faults_of_a_list_come_together(case, tmp_path):
    text, expected = SPOILT[case]
    path = write_layouts(tmp_path, LAYOUTS.replace('folder = "."', 'folder = "."\ncodelists = "lijsten"'))
    (tmp_path / "lijsten").mkdir()
    (tmp_path / "lijsten" / "srg_type.csv").write_text(text, "utf-8")
    with pytest.raises(StudyError) as caught:
        study.read(path)
    found = {fault.code: fault.params for fault in caught.value.faults}
    assert set(found) == set(expected)
    for code, params in expected.items():
        assert {key: found[code][key] for key in params} == params
        assert found[code]["file"] == "srg_type.csv"
    for fault in caught.value.faults:
        assert fault.place == "study.toml line 7" and fault.text("nl") != fault.text("en")


def test_all_lists_are_looked_at(tmp_path):
    folder = tmp_path / "lijsten"
    folder.mkdir()
    (folder / "bus_reden.csv").write_text(LIST)
    (folder / "bus_reason.csv").write_bytes(LIST.encode() + "1;work;Caf\u00e9;;;;\n".encode("cp1252"))
    (folder / "notes.txt").write_text("anything")
    (folder / "cbs_sex.csv").mkdir()
    lists, faults = layouts.read_lists(folder, layouts.list_names())
    assert [fault.code for fault in faults] == [
        "layouts.list_encoding", "layouts.list_unknown", "layouts.list_unreadable",
    ]  # fmt: skip
    assert faults[0].params["line"] == 2 and "bus_reason" in faults[1].params["known"]


def test_lists_written_out_are_the_lists(tmp_path):
    written, kept = layouts.write_lists(tmp_path / "lijsten")
    assert [path.stem for path in written] == list(layouts.list_names()) and kept == []
    lists, faults = layouts.read_lists(tmp_path / "lijsten", layouts.list_names())
    assert faults == []
    for name, made in lists.items():
        assert made.own and made.codes == layouts.shipped(name).codes
    assert written[0].read_bytes().startswith(b"\xef\xbb\xbf")
    written[0].write_text("mine")
    again, kept = layouts.write_lists(tmp_path / "lijsten", ["bus_reason"])
    assert (again, kept) == ([], [written[0]]) and written[0].read_text() == "mine"
    with pytest.raises(UsageError, match="layouts.no_list"):
        layouts.write_lists(tmp_path, ["bus"])


def test_excel_writes_a_hint_and_blank_lines():
    text = "sep=,\r\n" + LIST.replace(";", ",").replace("\n", "\r\n") + "1,work,,,,NO,\r\n,,,,,,\r\n"
    made, faults = layouts.read_list(text.encode(), "bus_reason")
    assert faults == [] and [row.code for row in made.codes] == ["1"]


def test_the_command_writes_lists(tmp_path):
    path = write_layouts(tmp_path, LAYOUTS.replace('folder = "."', 'folder = "."\ncodelists = "lijsten"'))
    done = CliRunner().invoke(app, ["check", str(path), "--lang", "nl"])
    assert done.exit_code == 1 and isinstance(done.exception, StudyError)  # the folder is not there yet
    assert "evalkit codes" in done.exception.text("nl")
    done = CliRunner().invoke(app, ["codes", str(path), "--into", "lijsten", "--lang", "nl"])
    assert done.exit_code == 0 and "6 codelijsten" in done.output
    assert {path.stem for path in (tmp_path / "lijsten").iterdir()} == set(layouts.list_names())
    done = CliRunner().invoke(app, ["codes", str(path), "--into", "lijsten", "--list", "srg_type", "--lang", "en"])
    assert done.exit_code == 0 and "srg_type.csv exists already" in done.output
    for wrong in (["codes", str(path), "--into", "../x"], ["codes", str(tmp_path / "no" / "study.toml")]):
        assert isinstance(CliRunner().invoke(app, wrong).exception, UsageError)
