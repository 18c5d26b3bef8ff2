"""Pseudonyms: keyed, the same in all files, and nothing else in the file changes."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from register_example import bsn

from evalkit.cli import app
from evalkit.errors import DataError, EvalkitError, UsageError
from evalkit.register.pseudonymise import Pseudonyms, is_number, load_key, normal, pseudonymise

KEY = bytes(range(32))
NUMBERS = bsn(60)


def expected(number: str) -> str:
    return "p" + hmac.new(KEY, number.zfill(9).encode(), hashlib.sha256).hexdigest()[:32]


def run(folder: Path, content: bytes, *columns: str, name: str = "in.csv") -> tuple[bytes, object]:
    (folder / name).write_bytes(content)
    out = folder / f"out-{time.monotonic_ns()}{Path(name).suffix}"
    counts = pseudonymise(folder / name, columns or ("bsn",), KEY, out)
    return out.read_bytes(), counts


def code(folder: Path, content: bytes, *columns: str, name: str = "in.csv") -> str:
    before = set(folder.iterdir())
    with pytest.raises(EvalkitError) as caught:
        run(folder, content, *columns, name=name)
    assert set(folder.iterdir()) - before <= {folder / name}, "nothing may be written"
    text = caught.value.text("nl") + caught.value.text("en")
    assert not any(number.lstrip("0") in text for number in NUMBERS)
    assert caught.value.__cause__ is None
    return caught.value.faults[0].code


def table(numbers: list[str], rest: str = "a", end: str = "\r\n") -> str:
    return end.join(["naam;bsn;waarde", *(f"{rest};{number};{i}" for i, number in enumerate(numbers))]) + end


# -- what is replaced -----------------------------------------------------------------------------------------------


def test_is_hmac_sha256_of_nine_digits(tmp_path: Path) -> None:
    out, counts = run(tmp_path, table(NUMBERS).encode())
    assert out.decode() == table([expected(number) for number in NUMBERS])
    assert (counts.rows, counts.valid, counts.invalid, counts.empty) == (60, 60, 0, 0)


def test_ways_of_writing_are_one_number(tmp_path: Path) -> None:
    number = "012345672"
    assert is_number(number)
    ways = [number, "12345672", "0123.45.672", " 012 345 672 ", '"012345672"', "12345672.0", "012-345-672"]
    out, counts = run(tmp_path, table(ways).encode())
    assert {line.split(";")[1] for line in out.decode().splitlines()[1:]} == {expected(number)}
    assert counts.valid == len(ways)


def test_the_same_key_links_files_and_another_does_not(tmp_path: Path) -> None:
    one, _ = run(tmp_path, table(NUMBERS).encode())
    other, _ = run(tmp_path, b"bsn\n" + "\n".join(reversed(NUMBERS)).encode())
    assert {line.split(";")[1] for line in one.decode().splitlines()[1:]} == set(other.decode().splitlines()[1:])
    assert Pseudonyms(bytes(32)).of(NUMBERS[0]) != Pseudonyms(KEY).of(NUMBERS[0])


def test_invalid_numbers_are_counted_and_hidden_too(tmp_path: Path) -> None:
    strange = ["123456789", "onbekend", "1.23457E+08", "", "000000000", "0"]
    out, counts = run(tmp_path, table([*NUMBERS[:5], *strange]).encode())
    cells = [line.split(";")[1] for line in out.decode().splitlines()[1:]]
    assert cells[-3:] == ["", "", ""] and all(cell.startswith("p") for cell in cells[:-3])
    assert len(set(cells[:-3])) == 8
    assert (counts.valid, counts.invalid, counts.empty) == (5, 3, 3)
    assert "onbekend" not in out.decode() and "123456789" not in out.decode()


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_no_cell_ends_in_an_error_or_comes_out_as_it_was(text: str) -> None:
    made = Pseudonyms(KEY).of(text)
    assert made == "" if not normal(text).strip("0") else len(made) == 33


# -- what stays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
def test_all_other_bytes_stay(tmp_path: Path, encoding: str, end: str, delimiter: str) -> None:
    rows = [
        ["naam", "bsn", '"op; merking"', "x"],
        ["Zoë", "{0}", f'"a{delimiter}b {end}""c"" "', " 1,5 ".replace(delimiter, " ")],
        ['"Q"', '"{1}"', 'five" inch', ""],
        ["", "{2}", "", " "],
    ]
    text = end.join(delimiter.join(row) for row in rows) + end + end + delimiter.join(["z", "{3}", "", "last"])
    given = text.format(*NUMBERS).encode(encoding)
    wanted = text.replace('"{1}"', "{1}").format(*map(expected, NUMBERS)).encode(encoding)
    out, counts = run(tmp_path, given)
    assert out == wanted
    assert (counts.rows, counts.valid) == (4, 4)


def test_a_first_line_that_tells_the_delimiter(tmp_path: Path) -> None:
    text = "sep=|\r\nbsn|x;y\r\n" + "".join(f"{number}|1;2\r\n" for number in NUMBERS)
    out, _ = run(tmp_path, text.encode())
    assert out.decode() == "sep=|\r\nbsn|x;y\r\n" + "".join(f"{expected(number)}|1;2\r\n" for number in NUMBERS)


def test_several_columns(tmp_path: Path) -> None:
    text = "bsn;partner;x\n" + "".join(f"{a};{b};1\n" for a, b in zip(NUMBERS, NUMBERS[::-1], strict=True))
    assert code(tmp_path, text.encode(), "bsn") == "data.bsn"
    out, counts = run(tmp_path, text.encode(), "bsn", "partner")
    assert counts.valid == 2 * len(NUMBERS)
    assert not any(number in out.decode() for number in NUMBERS)


def test_parquet(tmp_path: Path) -> None:
    columns = {
        "bsn": pa.array([int(number) for number in NUMBERS]),
        "start": pa.array([0] * len(NUMBERS), pa.date32()),
        "x": pa.array([1.5] * len(NUMBERS)),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    counts = pseudonymise(tmp_path / "in.parquet", ["bsn"], KEY, tmp_path / "out.parquet")
    made = pq.read_table(tmp_path / "out.parquet")
    assert made.column("bsn").to_pylist() == [expected(number) for number in NUMBERS]
    assert made.drop_columns("bsn") == pa.table(columns).drop_columns("bsn") and counts.valid == len(NUMBERS)
    raw = (tmp_path / "out.parquet").read_bytes()
    assert not any(int(number).to_bytes(8, "little") in raw for number in NUMBERS)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_number_elsewhere_in_the_row_is_refused(tmp_path: Path) -> None:
    lines = [f"opmerking;{n};1" for n in NUMBERS]
    lines[7] = f"zie dossier {NUMBERS[7][:4]}.{NUMBERS[7][4:6]}.{NUMBERS[7][6:]} graag;{NUMBERS[7]};1"
    text = "\n".join(["notitie;bsn;x", *lines])
    assert code(tmp_path, text.encode()) == "pseudonymise.left"
    dates = "\n".join(["datum;bsn", *(f"20160201;{number}" for number in NUMBERS)])
    run(tmp_path, dates.encode())
    columns = {"notitie": [line.split(";")[0] for line in lines], "bsn": NUMBERS}
    pq.write_table(pa.table(columns), tmp_path / "n.parquet")
    with pytest.raises(DataError) as caught:
        pseudonymise(tmp_path / "n.parquet", ["bsn"], KEY, tmp_path / "o.parquet")
    assert caught.value.faults[0].code == "pseudonymise.left" and not (tmp_path / "o.parquet").exists()


def test_files_that_cannot_be_done(tmp_path: Path) -> None:
    good = table(NUMBERS)
    assert code(tmp_path, good.encode(), "nummer") == "data.header"
    assert code(tmp_path, good.replace("naam;bsn", "bsn;bsn").encode()) == "data.double_column"
    assert code(tmp_path, good.encode(), "waarde") == "data.bsn"
    assert code(tmp_path, table(["a", "b"]).encode()) == "pseudonymise.no_numbers"
    assert code(tmp_path, b"bsn;x\n") == "data.empty_file"
    assert code(tmp_path, good.encode() + f"{NUMBERS[0]};x\r\n".encode()) == "data.ragged_records"
    assert code(tmp_path, b"PK\x03\x04", name="in.xlsx") == "pseudonymise.kind"
    assert code(tmp_path, b"PAR1nonsense", name="in.parquet") == "data.unreadable_file"
    (tmp_path / "there.csv").write_text("x")
    (tmp_path / "in.csv").write_text(good)
    with pytest.raises(UsageError):
        pseudonymise(tmp_path / "in.csv", ["bsn"], KEY, tmp_path / "there.csv")
    assert (tmp_path / "there.csv").read_text() == "x"


# -- the key --------------------------------------------------------------------------------------------------------


def fault(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_key(path)
    return caught.value.faults[0].code


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        first, made = load_key(path)
    finally:
        os.umask(before)
    assert made and len(first) == 32 and load_key(path) == (first, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(tmp_path / "other")[0] != first
    for mode in (0o644, 0o640, 0o604, 0o666):
        path.chmod(mode)
        assert fault(path) == "pseudonymise.key_open"


def test_the_key_is_not_kept_with_the_study(tmp_path: Path) -> None:
    inner = tmp_path / "study" / "data"
    inner.mkdir(parents=True)
    (tmp_path / "study" / "study.toml").write_text("")
    for path in (inner / "key", tmp_path / "study" / "key"):
        assert fault(path) == "pseudonymise.key_inside" and not path.exists()
    load_key(tmp_path / "key")
    (inner / "link").symlink_to(tmp_path / "key")
    (tmp_path / "way").symlink_to(inner)
    assert fault(inner / "link") == fault(tmp_path / "way" / "key") == "pseudonymise.key_inside"


def test_what_is_no_key(tmp_path: Path) -> None:
    for content in ("", "password", "ab" * 31, "xy" * 32):
        path = tmp_path / f"k{len(content)}"
        path.write_text(content)
        path.chmod(0o600)
        assert fault(path) == "pseudonymise.key_unusable"
    assert fault(tmp_path / "nowhere" / "key") == "pseudonymise.key_folder"
    assert fault(tmp_path) == "pseudonymise.key_open" or fault(tmp_path) == "pseudonymise.key_unusable"


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    (tmp_path / "in.csv").write_text(table(NUMBERS))
    arguments = ["pseudonymise", str(tmp_path / "in.csv"), "--column", "bsn", "--key", str(tmp_path / "key")]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out.csv"), "--lang", "nl"])
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "out.csv")
    assert "60 geldige nummers" in done.stderr and "nieuwe sleutel" in done.stderr
    again = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out.csv")])
    assert isinstance(again.exception, UsageError)
    assert not any(number in (tmp_path / "out.csv").read_text() for number in NUMBERS)


def test_a_large_file_is_done_quickly(tmp_path: Path) -> None:
    lines = [f"20160201;{NUMBERS[i % 60]};tekst;{i};12-05-2017;\r\n" for i in range(200_000)]
    content = ("datum;bsn;a;b;c;d\r\n" + "".join(lines)).encode()
    begin = time.process_time()
    _, counts = run(tmp_path, content)
    assert counts.valid == 200_000 and time.process_time() - begin < 8
