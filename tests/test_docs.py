"""What the documentation says is there: commands, settings, columns, links, and code that runs."""

from __future__ import annotations

import re
import string
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import typer
from pydantic import BaseModel

import evalkit
from evalkit import errors, results
from evalkit.analyses import METHODS, method
from evalkit.cli import app
from evalkit.text import LANGUAGES, catalogue

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
COMMANDS = typer.main.get_command(app).commands
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.M | re.S)


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """The text under a second-level heading."""
    parts = re.split(r"^## +(.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


# -- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name):
    text = section(page("commands.md"), name)
    rows = "\n".join(line for line in text.splitlines() if line.startswith("| "))
    for parameter in COMMANDS[name].params:
        words = [parameter.name.upper()] if parameter.param_type_name == "argument" else parameter.opts
        for word in words:
            assert re.search(rf"`{re.escape(word)}[ `]", rows), f"evalkit {name}: {word}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_that_is_shown_is_the_help(name):
    text = " ".join(section(page("commands.md"), name).split())
    assert " ".join(COMMANDS[name].help.split()) in text
    for parameter in COMMANDS[name].params:
        assert " ".join((getattr(parameter, "help", None) or "").split()) in text


def test_no_command_is_made_up():
    headings = set(re.findall(r"^## +(.+)$", page("commands.md"), flags=re.M))
    assert headings == {*COMMANDS, "Exit codes", "Environment"}


def test_exit_codes():
    text = section(page("commands.md"), "Exit codes")
    for error in errors.EvalkitError.__subclasses__():
        assert re.search(rf"^\| {error.exit_code} \|.*`{error.__name__}`", text, flags=re.M)


def test_environment_variables():
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "evalkit").rglob("*.py"))
    used = set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", source))
    text = section(page("commands.md"), "Environment")
    assert {name for name in used if f"`{name}`" not in text} == set()


# -- methods --------------------------------------------------------------------------------------------------------


def fields(model: type[BaseModel]) -> Iterator[str]:
    """Names of all settings, also of settings inside settings."""
    for name, field in model.model_fields.items():
        yield name
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields(kind)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_is_documented(name):
    text = page(f"methods/{name}.md")
    for field in fields(method(name).Settings):
        assert re.search(rf"`(?:[^`]*\W)?{field}(?:\W[^`]*)?`", section(text, "Settings")), field


@pytest.mark.parametrize("name", METHODS)
def test_a_method_page_is_complete(name):
    headings = set(re.findall(r"^## +(.+)$", page(f"methods/{name}.md"), flags=re.M))
    needed = {
        "Question", "Estimand", "Assumptions", "Equation as implemented", "Settings", "Edge cases",
        "Reference implementation and agreement", "When not to use it", "References",
    }  # fmt: skip
    assert needed <= headings


def test_experiment_agrees_with_statsmodels_as_its_page_says():
    import statsmodels.api as sm

    from evalkit.experiment import difference

    rng = np.random.default_rng(4)
    n = 300
    x, treated = rng.normal(size=(n, 3)), rng.random(n) < 0.4
    y = x @ [1.0, 0.5, 0.0] + treated * (0.7 + x[:, 0]) + rng.normal(size=n)
    centred = x - x.mean(axis=0)
    simple = np.column_stack([np.ones(n), treated])
    full = np.column_stack([simple, centred, centred * treated[:, None]])
    for covariates, regressors in ((None, simple), (x, full)):
        mine = difference(treated, y[:, None], np.ones((n, 1), bool), np.arange(n), covariates)
        theirs = sm.OLS(y, regressors).fit(cov_type="HC2")
        assert mine.estimate[0] == pytest.approx(theirs.params[1], abs=1e-12)
        assert mine.counterfactual[0] == pytest.approx(theirs.params[0], abs=1e-12)
        assert np.sqrt(mine.uncertainty.vcov[0, 0]) == pytest.approx(theirs.bse[1], abs=1e-12)


# -- formats --------------------------------------------------------------------------------------------------------


def test_columns_of_the_results():
    text = section(page("contracts.md"), "Results")
    for name in (*results.EFFECT_COLUMNS, *results.SUMMARY_COLUMNS):
        assert f"`{name}`" in text


def test_designs_of_the_coverage_table():
    source = (ROOT / "tests" / "simulation" / "designs.py").read_text("utf-8")
    designs = re.findall(r"^ +Design\(\"([^\"]+)\"", source, flags=re.M)
    text = section(page("coverage.md"), "Designs")
    assert designs
    assert [name for name in designs if f"| {name} |" not in text] == []


def test_one_version():
    assert (
        re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), flags=re.M)[1] == evalkit.__version__
    )
    assert metadata.version("evalkit-nl") == evalkit.__version__
    assert f"## {evalkit.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = section(page("architecture.md"), "Dependencies")
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert [name for name in (re.split(r"[<>=\[]", w)[0] for w in wanted) if name not in text] == []


def test_layers_are_those_of_import_linter():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in tool["contracts"] if contract["type"] == "layers")
    named = [", ".join(part.strip().removeprefix("evalkit.") for part in layer.split("|")) for layer in layers]
    assert "\n".join(named) in section(page("architecture.md"), "Layers")


# -- words ----------------------------------------------------------------------------------------------------------


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def test_catalogues_have_the_same_keys_and_placeholders():
    dutch, english = catalogue("nl"), catalogue("en")
    assert set(dutch) == set(english)
    assert {key for key in dutch if placeholders(dutch[key]) != placeholders(english[key])} == set()


def test_files_of_the_catalogues_pair_up():
    folders = [ROOT / "evalkit" / "text" / lang for lang in LANGUAGES]
    first, second = ({path.name for path in folder.glob("*.toml")} for folder in folders)
    assert first == second


def test_glossary_has_both_languages():
    rows = [line.strip("| ").split("|") for line in page("glossary.md").splitlines() if line.startswith("| ")]
    terms = [row for row in rows if row[0].strip() != "Nederlands"]
    assert len(terms) > 40
    for row in terms:
        assert row[0].strip() and row[1].strip(), row
    dutch, english = (" ".join(row[i] for row in terms).lower() for i in (0, 1))
    assert "vergelijkingsgroep" in dutch and "comparison group" in english
    assert "achterstand" in dutch and "lock-in" in english


# -- pages ----------------------------------------------------------------------------------------------------------


def test_readme_begins_with_the_two_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    first = FENCE.search(text)
    assert [line.split("#")[0].strip() for line in first[3].splitlines()] == ["make demo", "make test"]
    assert text[: first.start()].count("\n") < 8
    assert "pip install evalkit-nl" in text and "\nevalkit demo\n" in text


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.M))
    for path in PAGES:
        named = set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", path.read_text("utf-8"), flags=re.M))
        assert {a or b for a, b in named} <= targets, path.name


def slug(heading: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file) if file else path
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            headings = re.findall(r"^#+ +(.+)$", there.read_text("utf-8"), flags=re.M)
            assert anchor in {slug(heading) for heading in headings}, target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_registries_and_no_paths_of_a_machine(path):
    text = path.read_text("utf-8")
    assert not re.search(r"https?://\S*(pypi|cran|conda|registry)", text, flags=re.I)
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt|opt)/|\b[A-Z]:\\Users", text)


def test_every_page_is_in_the_menu():
    yaml = pytest.importorskip("yaml")
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]

    def names(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from names(inner)

    assert set(names(menu)) == {str(path.relative_to(DOCS).as_posix()) for path in DOCS.rglob("*.md")}


# -- code -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def municipality(tmp_path_factory):
    """What ``evalkit init municipality`` makes, as the pages assume."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "init", "municipality", "--quiet"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", [ROOT / "README.md", DOCS / "quickstart.md"], ids=lambda path: path.name)
def test_code_runs(path, municipality, monkeypatch):
    blocks = [code for indent, language, code in FENCE.findall(path.read_text("utf-8")) if language == "python"]
    assert blocks
    monkeypatch.chdir(municipality)
    names: dict[str, object] = {}
    for number, code in enumerate(blocks, 1):
        exec(compile(code, f"{path.name}, block {number}", "exec"), names)
    assert (municipality / "municipality" / "results" / "effects.csv").is_file()
