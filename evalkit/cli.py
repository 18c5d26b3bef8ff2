"""The command line: parse, call one function, write. Results on stdout, progress and messages on stderr."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit.cli_sample import Lang, sample
from evalkit.errors import EvalkitError, Fault, UsageError

if TYPE_CHECKING:
    from evalkit.register.dialect import Dialect
    from evalkit.run import Outcome

app = typer.Typer(
    name="evalkit",
    help="What did a re-integration instrument do, by month since its start? From a municipality's own records.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class Variant(StrEnum):
    """Which municipality to simulate."""

    demo = "demo"
    small = "small"
    null = "null"


def _default_lang() -> Lang:
    wish = os.environ.get("EVALKIT_LANG") or os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return Lang.nl if wish.lower().startswith("nl") else Lang.en


_DONE = {
    "simulate": 0.0, "read": 0.1, "sample": 0.25, "analysis": 0.4, "aggregates": 0.4, "twin": 0.6, "results": 0.7,
    "report": 0.8, "done": 1.0,
}  # fmt: skip
"""How far along the line each step begins; roughly, by time."""


class _Console:
    """Where words go: nothing on stderr when quiet, one JSON document on stdout when asked.

    On a terminal steps share one line with a bar; elsewhere each has a line of its own.
    """

    def __init__(self) -> None:
        self.quiet = False
        self.json = False
        self.lang = _default_lang()
        self.bar = False

    def say(self, key: str, **params: Any) -> None:
        """A sentence to stderr."""
        if not self.quiet:
            from evalkit.text import say

            print(say(f"cli.{key}", self.lang, **params), file=sys.stderr, flush=True)

    def progress(self, step: str, **params: Any) -> None:
        """A step of the run to stderr: its name, and after a space what it works on."""
        name, _, what = step.partition(" ")
        if not sys.stderr.isatty():
            if name != "done":
                self.say(f"step.{name}", what=what, **params)
        elif not self.quiet:
            from evalkit.text import say

            self.bar = name != "done"
            full = round(24 * _DONE[name])
            words = "" if name == "done" else say(f"cli.step.{name}", self.lang, what=what, **params)
            end = "\n" if name == "done" else ""
            print(f"\r|{'█' * full}{'·' * (24 - full)}| {words:<60}", end=end, file=sys.stderr, flush=True)

    def notice(self, dialect: Dialect) -> None:
        """How a file turned out to be written, to stderr."""
        if not self.quiet:
            print(("\n" if self.bar else "") + dialect.text(self.lang), file=sys.stderr, flush=True)

    def out(self, text: str, document: Any) -> None:
        """The result to stdout: text, or the document as JSON."""
        print(json.dumps(document, ensure_ascii=False, indent=1) if self.json else text)


console = _Console()

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]
Language = Annotated[Lang | None, typer.Option("--lang", help="Language of messages (else EVALKIT_LANG or LANG).")]
StudyFile = Annotated[Path, typer.Argument(help="The study file, or the folder that holds study.toml.")]


def _setup(quiet: bool, as_json: bool, lang: Lang | None) -> None:
    console.quiet, console.json = quiet, as_json
    console.lang = lang or console.lang


@app.callback()
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version and stop.", is_eager=True)] = False,
) -> None:
    """Show the version."""
    if show:
        from evalkit import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put data, results and report.")] = Path("evalkit-demo"),
    persons: Annotated[int, typer.Option(min=500, help="How many persons to simulate.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 1,
    quiet: Quiet = False,
    as_json: AsJson = False,
    lang: Language = None,
) -> None:
    """Simulate a municipality, run its study and write the report: the whole line in one command."""
    _setup(quiet, as_json, lang)
    study = _simulate(folder, persons, seed, Variant.demo, again=True)
    _finish(study, folder / "results")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder for the study.")],
    empty: Annotated[bool, typer.Option("--empty", help="Only the study file, without sample data.")] = False,
    quiet: Quiet = False,
    lang: Language = None,
) -> None:
    """Set up a study folder: a commented study file, and sample data to replace with your own."""
    _setup(quiet, False, lang)
    if empty:
        from evalkit.files import write_files
        from evalkit.study import FILE_NAME, template

        _refuse_existing(folder / FILE_NAME)
        write_files(folder, {FILE_NAME: template(console.lang).encode()})
    else:
        _simulate(folder, 2_000, 1, Variant.demo)
    console.say("init_done", folder=str(folder))
    print(folder / "study.toml")


@app.command()
def check(study: StudyFile, quiet: Quiet = False, as_json: AsJson = False, lang: Language = None) -> None:
    """Read and check everything, cut the sample and judge the design, with every estimate withheld."""
    _setup(quiet, as_json, lang)
    from evalkit.report.plain import design_text

    outcome = _run(study, blind=True)
    console.progress("done")
    document = outcome.results.document
    console.out(design_text(document, console.lang), document)
    if not outcome.primary_shown:
        console.say("gate_failed")
        raise typer.Exit(4)


@app.command()
def run(
    study: StudyFile,
    out: Annotated[Path | None, typer.Option(help="Where to write; default: results beside the study file.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    lang: Language = None,
) -> None:
    """Run the study and write results.json, effects.csv, summary.csv and the report."""
    _setup(quiet, as_json, lang)
    folder = out or (study if study.is_dir() else study.parent) / "results"
    _finish(study, folder)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="results.json, or the folder that holds it.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default: beside the results.")] = None,
    quiet: Quiet = False,
    lang: Language = None,
) -> None:
    """Write the report again from results that were saved."""
    _setup(quiet, False, lang)
    from evalkit.audit import audit
    from evalkit.report import write
    from evalkit.results import Results

    path = results / "results.json" if results.is_dir() else results
    if not path.is_file():
        raise UsageError(Fault("cli.no_results", {"path": path.name}))
    document = dict(Results.read(path).document)
    audit(document)
    for written in write(document, out or path.parent):
        print(written)


@app.command()
def simulate(
    folder: Annotated[Path | None, typer.Argument(help="A new or empty folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder, when it is not given as an argument.")] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="<study>", help="Make a synthetic twin of the register of this study.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="<path>", help="With --like: aggregates.json of before; no data are read."),
    ] = None,
    persons: Annotated[
        int | None, typer.Option(min=50, help="How many persons; default 20000, for a twin as many as the register.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed; the same seed gives the same files.")] = 1,
    effect: Annotated[
        str | None, typer.Option(metavar="<during,after>", help="With --like: factors on leaving, or none.")
    ] = None,
    variant: Annotated[
        Variant, typer.Option(help="demo: with effects; null: no effect at all; small: a pilot.")
    ] = Variant.demo,
    quiet: Quiet = False,
    lang: Language = None,
) -> None:
    """Write the files of a simulated municipality, or a synthetic twin of yours, a study file and the true effect."""
    _setup(quiet, False, lang)
    target = folder or out
    if target is None or (folder and out):
        raise UsageError(Fault("cli.simulate_where"))
    if like is not None:
        if variant is not Variant.demo:
            raise UsageError(Fault("cli.not_with_like", {"option": "--variant"}))
        from evalkit.simulate.like import write_twin

        made = write_twin(target, like, source, persons, seed, effect, console.notice, console.progress)
        for key, params in made.remarks():
            console.say(f"twin.{key}", **params)
        print(made.study)
        return
    for option, given in (("--from", source), ("--effect", effect)):
        if given is not None:
            raise UsageError(Fault("cli.needs_like", {"option": option}))
    print(_simulate(target, 20_000 if persons is None else persons, seed, variant, with_truth=True))


@app.command()
def pseudonymise(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file with citizen service numbers.")],
    column: Annotated[
        list[str], typer.Option(metavar="<name>", help="Column that holds the numbers; may be given more than once.")
    ],
    key: Annotated[Path, typer.Option(help="Key file, outside any study folder; made when there is none.")],
    out: Annotated[Path, typer.Option(help="Where to write the copy; must not exist.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
    lang: Language = None,
) -> None:
    """Replace citizen service numbers by keyed hashes (HMAC-SHA-256); everything else in the file stays as it is."""
    _setup(quiet, as_json, lang)
    from dataclasses import asdict

    from evalkit.register.pseudonymise import load_key
    from evalkit.register.pseudonymise import pseudonymise as replace_numbers

    _refuse_existing(out)
    secret, made = load_key(key)
    if made:
        console.say("pseudonymise.key_made", file=str(key))
    counts = asdict(replace_numbers(file, column, secret, out))
    console.say("pseudonymise.counts", **counts)
    console.out(str(out), {"file": str(out), **counts})


@app.command()
def doctor(
    study: Annotated[Path | None, typer.Argument(help="The study file, or the folder that holds study.toml.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    lang: Language = None,
) -> None:
    """Say what is installed, where files can be written, and what a study still lacks."""
    _setup(quiet, as_json, lang)
    from evalkit.doctor import examine

    diagnosis = examine(study)
    console.out(diagnosis.text(console.lang), diagnosis.document(console.lang))
    if diagnosis.exit_code:
        raise typer.Exit(diagnosis.exit_code)


@app.command(name="map")
def propose_mapping(
    files: Annotated[list[Path], typer.Argument(metavar="files...", help="Data files, of any kind that can be read.")],
    into: Annotated[
        Path | None, typer.Option(help="Study file to write the proposal into; else it is printed.")
    ] = None,
    quiet: Quiet = False,
    lang: Language = None,
) -> None:
    """Propose which file is which table, which column is which and where codes belong, from unknown files."""
    _setup(quiet, False, lang)
    from evalkit.files import write_files
    from evalkit.mapping import as_toml, insert, propose

    study = into / "study.toml" if into is not None and into.is_dir() else into
    if study is not None and not study.is_file():
        raise UsageError(Fault("map.no_study", {"file": study.name}))
    proposal = propose(files)
    if not any(table.table for table in proposal.tables):
        console.say("map.none")
    if study is None:
        print(as_toml(proposal, console.lang), end="")
        return
    text = insert(study.read_bytes().decode("utf-8-sig"), as_toml(proposal, console.lang, study.parent))
    write_files(study.parent, {study.name: text.encode("utf-8")})
    console.say("map.written", file=study.name)
    print(study)


@app.command()
def codes(
    study: StudyFile,
    into: Annotated[str, typer.Option(help="Folder inside the study folder.")] = "codelists",
    lists: Annotated[list[str] | None, typer.Option("--list", metavar="<name>", help="Only this; repeatable.")] = None,
    quiet: Quiet = False,
    lang: Language = None,
) -> None:
    """Write our code lists into the study folder, to be edited; lists that are there already stay as they are."""
    _setup(quiet, False, lang)
    from evalkit.layouts import write_lists
    from evalkit.study.complete import outside

    folder = study if study.is_dir() else study.parent
    if not folder.is_dir() or outside(into):
        raise UsageError(Fault("layouts.no_folder", {"folder": into}))
    written, kept = write_lists(folder / into, lists)
    for path in kept:
        console.say("codes.kept", file=path.name)
    if written:
        console.say("codes.written", count=len(written), folder=into)
        print(*written, sep="\n")


app.command()(sample)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UsageError(Fault("cli.exists", {"path": str(path)}))


def _simulate(
    folder: Path, persons: int, seed: int, variant: Variant, *, with_truth: bool = False, again: bool = False
) -> Path:
    """Files of a simulated municipality with a study file; the study file's path.

    Nothing is overwritten: with ``again`` files may exist if they hold just what would be written.
    """
    import tempfile

    from evalkit import simulate as simulator
    from evalkit.files import write_files
    from evalkit.study import FILE_NAME, template

    if not again:
        for path in (folder / FILE_NAME, folder / "data"):
            _refuse_existing(path)
    console.progress("simulate", persons=persons)
    municipality = {"demo": simulator.DEMO, "small": simulator.SMALL, "null": simulator.NULL}[variant.value]
    tables = simulator.draw(municipality, persons, seed)
    true = simulator.truth(municipality) if with_truth else None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".simulating-", dir=folder) as aside:
        simulator.write(Path(aside), tables, truth=true)
        made = {Path("data") / path.name: path.read_bytes() for path in sorted(Path(aside).iterdir())}
    made[Path(FILE_NAME)] = template(console.lang).encode()
    for name, content in made.items():
        if (folder / name).exists() and (folder / name).read_bytes() != content:
            raise UsageError(Fault("cli.exists", {"path": str(folder / name)}))
    write_files(folder, {str(name): content for name, content in made.items()})
    return folder / FILE_NAME


def _run(study: Path, blind: bool = False, before: Path | None = None) -> Outcome:
    """Run the study; ``before`` is where an earlier run may have left its results."""
    from evalkit.results import Results
    from evalkit.run import run as run_study

    earlier = Results.read(before).document if before is not None and before.is_file() else None
    return run_study(study, console.progress, blind=blind, earlier=earlier, notice=console.notice)


def _finish(study: Path, folder: Path) -> None:
    """Run, write results and report, print the answer; leave with 4 when no primary estimate may be shown."""
    from evalkit.report import write
    from evalkit.report.plain import answer_text

    outcome = _run(study, before=folder / "results.json")
    console.progress("report")
    document = dict(outcome.results.document)
    paths = [*outcome.results.write(folder), *write(document, folder)]
    console.progress("done")
    files = {"files": [str(path) for path in paths]}
    console.out(answer_text(document, console.lang) + "\n" + "\n".join(files["files"]), files | {"results": document})
    if not outcome.primary_shown:
        console.say("gate_failed")
        raise typer.Exit(4)


def _fail(error: EvalkitError) -> int:
    """Print the faults and give the exit code."""
    if console.json:
        faults = [
            {"code": f.code, "place": f.place, "message": f.message(console.lang), "remedy": f.remedy(console.lang)}
            for f in error.faults
        ]
        print(json.dumps({"faults": faults, "exit_code": error.exit_code}, ensure_ascii=False, indent=1))
    else:
        print(("\n" if console.bar else "") + error.text(console.lang), file=sys.stderr)
    return error.exit_code


_ASCII = {"−": "-", "–": "-", "█": "#", "·": ".", "“": '"', "”": '"', "…": "..."}


def _plain_characters(error: UnicodeError) -> tuple[str, int]:
    """Characters that a terminal or pipe cannot take, in plain ones: a minus stays a minus."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_ASCII.get(c, "?") for c in error.object[error.start : error.end]), error.end


def main() -> None:
    """Run the command line; every error ends in one of the documented exit codes.

    0 done, 1 our fault, 2 usage or study file, 3 data, 4 design not supported by the data, 5 disclosure.
    An unexpected error names its kind and place only, because its text could hold a value from the data.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: faster, and sums do not depend on the machine
    if not os.environ.get("EVALKIT_DEBUG"):
        warnings.simplefilter("ignore")  # a library's warning may quote a value
    codecs.register_error("evalkit", _plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="evalkit")
    try:
        app()
    except EvalkitError as error:
        sys.exit(_fail(error))
    except BrokenPipeError:  # whoever read our output stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("EVALKIT_DEBUG"):
            raise
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
        from evalkit.text import say

        print(say("cli.internal", console.lang, kind=type(error).__name__, where=where), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
