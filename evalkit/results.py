"""The record of a run: one document for JSON, CSV and report, and the only door through which results are written.

The document is assembled at full precision, passed through disclosure control, and only then written; files appear
whole or not at all. It holds no microdata.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import evalkit
from evalkit.audit import audit
from evalkit.disclosure import protect
from evalkit.effects import EffectProfile
from evalkit.errors import Fault, UsageError
from evalkit.exhibits import Analysis, Chart, Exhibit, Note, Table
from evalkit.files import write_files
from evalkit.gate import Judgement
from evalkit.measures import Summary, summarise
from evalkit.study import Study

SCHEMA = 1
LEVEL = 0.95
PACKAGES = ("duckdb", "evalkit-nl", "matplotlib", "narwhals", "numba", "numpy", "pandas", "pyarrow", "scipy")

EFFECT_COLUMNS = (
    "analysis", "method", "instrument", "comparison", "outcome", "subgroup", "month", "estimate", "std_error", "ci_low",
    "ci_high", "band_low", "band_high", "counterfactual", "n_treated", "n_comparison", "estimand", "unit", "se_kind",
    "composition", "status",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "analysis", "outcome", "subgroup", "measure", "estimate", "std_error", "set_low", "set_high", "status",
)  # fmt: skip

SECONDARY = ("start_first", "exit_first", "difference_in_means", "contrast", "difference_between_answers")
"""Variants that the summary table, which has no column for them, leaves out."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """A protected results document; what the report is made from."""

    document: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Results:
        """Results from a ``results.json``.

        Raises
        ------
        UsageError
            ``results.unreadable`` when the file is no JSON of this kind.
        """
        try:
            document = json.loads(Path(path).read_text("utf-8"))
        except ValueError:
            document = None
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise UsageError(Fault("results.unreadable", {"schema": SCHEMA}, Path(path).name))
        return cls(document)

    def effects(self) -> list[Json]:
        """The effect table: one row a profile and month."""
        rows = []
        for profile in self.document["profiles"]:
            labels, estimand = profile["labels"], profile["estimand"]
            shared = {
                **{key: labels.get(key, "") for key in EFFECT_COLUMNS[:6]},
                "estimand": estimand_text(estimand, labels.get("variant", "")),
                "unit": estimand["unit"],
                "se_kind": profile["se_kind"],
                "composition": profile["composition"],
            }
            for month in profile["months"]:
                row = shared | month
                rows.append({key: row[key] for key in EFFECT_COLUMNS})
        return rows

    def summary(self) -> list[Json]:
        """The summary table: one row a profile and measure."""
        rows = []
        for profile in self.document["profiles"]:
            if profile["labels"].get("variant") in SECONDARY:
                continue
            shared = {key: profile["labels"].get(key, "") for key in SUMMARY_COLUMNS[:3]}
            rows += [{key: (shared | measure)[key] for key in SUMMARY_COLUMNS} for measure in profile["summary"]]
        return rows

    def write(self, folder: Path) -> list[Path]:
        """Write ``results.json``, ``effects.csv`` and ``summary.csv``; each appears whole, the JSON last.

        Raises
        ------
        DisclosureError
            When the document shows what it may not; see :func:`evalkit.audit.audit`.
        """
        audit(self.document)
        text = json.dumps(self.document, ensure_ascii=False, indent=1, allow_nan=False)
        return write_files(
            Path(folder),
            {
                "effects.csv": to_csv(self.effects(), EFFECT_COLUMNS).encode(),
                "summary.csv": to_csv(self.summary(), SUMMARY_COLUMNS).encode(),
                "results.json": (text + "\n").encode(),
            },
        )


def estimand_text(estimand: Mapping[str, str], variant: str = "") -> str:
    """The estimand on one line: strategy vs versus | population | clock | identification | restriction."""
    parts = [
        f"{estimand['strategy']} vs {estimand['versus']}",
        estimand["population"],
        f"from {estimand['clock']}",
        estimand["identification"],
        estimand["restriction"],
        variant,
    ]
    return " | ".join(part for part in parts if part)


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Comma-separated text with a decimal point; missing is empty; text that a spreadsheet would run is quoted off."""
    from io import StringIO

    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row[key] is None else _cell(row[key]) for key in columns])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\r\n", "\n").replace("\r", "\n")  # the writer leaves a bare carriage return unquoted
    return "'" + value if value[:1] in ("=", "+", "-", "@", "\t", "\n") else value


def assemble(
    study: Study,
    *,
    inputs: Sequence[Any],
    checks: Sequence[Any],
    flow: Sequence[Any],
    analyses: Sequence[Analysis],
    judgements: Sequence[Judgement],
    exhibits: Sequence[Exhibit] = (),
    earlier: Mapping[str, Any] | None = None,
) -> Results:
    """The protected results document of a run.

    ``exhibits`` describe the data and belong to no analysis: their ``analysis`` is empty.

    ``earlier`` is the document of a run before this one: the study file of the first run that showed an estimate is
    carried along, so that the report can print what was changed after results were known.
    """
    document: Json = {
        "schema": SCHEMA,
        "evalkit": evalkit.__version__,
        "created": _now(),
        "seed": study.seed,
        "study": {
            "name": study.path.name,
            "text": study.text,
            "sha256": study.sha256,
            "protocol": study.protocol(),
        },
        "inputs": [{"name": item.name, "sha256": item.sha256, "rows": item.rows} for item in inputs],
        "environment": environment(),
        "flow": [_plain(asdict(row)) for row in flow],
        "gates": [asdict(judgement) for judgement in judgements],
        "profiles": [_profile(profile, study.seed) for analysis in analyses for profile in analysis.profiles],
        "exhibits": [_exhibit(exhibit, analysis.id) for analysis in analyses for exhibit in analysis.exhibits]
        + [_exhibit(exhibit, "") for exhibit in exhibits],
        "findings": [
            {"analysis": analysis.id} | _plain(_fields(finding))
            for analysis in analyses
            for finding in analysis.findings
        ],
        "first_run": _first_run(earlier),
        "checks": [_plain(_fields(check)) for check in checks],
        "disclosure": {
            "profile": study.disclosure.profile,
            "minimum": study.disclosure.minimum,
            "hidden": 0,
            "ledger": [],
        },
    }
    return Results(protect(document))


def _first_run(earlier: Mapping[str, Any] | None) -> Json | None:
    """When and with which study file an estimate was shown first; None if this run is the first."""
    if earlier is None:
        return None
    if earlier.get("first_run"):
        return dict(earlier["first_run"])
    if not any(month["status"] == "ok" for profile in earlier["profiles"] for month in profile["months"]):
        return None
    study = earlier["study"]
    return {"created": earlier["created"], "sha256": study["sha256"], "text": study["text"]}


def _now() -> str:
    """UTC time to the second; SOURCE_DATE_EPOCH fixes it for reproducible builds."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = dt.datetime.fromtimestamp(int(epoch), dt.UTC) if epoch else dt.datetime.now(dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def environment() -> Json:
    """Python, platform and the versions of the packages that numbers depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    system = f"{platform.system()} {platform.machine()}"
    return {"python": platform.python_version(), "platform": system, "packages": versions}


def _plain(value: Any) -> Any:
    """JSON types only: numpy scalars and arrays unpacked, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _fields(value: Any) -> Json:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _profile(profile: EffectProfile, seed: int) -> Json:
    summary: Summary = summarise(profile, seed, LEVEL)
    band, cumulated, running = summary.band, summary.cumulated, summary.cumulated_band
    months = []
    for i, month in enumerate(profile.month):
        row = {
            "month": int(month),
            "estimate": profile.estimate[i],
            "std_error": profile.std_error[i],
            "ci_low": band.low[i],
            "ci_high": band.high[i],
            "band_low": band.band_low[i],
            "band_high": band.band_high[i],
            "counterfactual": profile.counterfactual[i],
            "n_treated": profile.n_treated[i],
            "n_comparison": profile.n_comparison[i],
            "status": profile.status[i],
        }
        if row["status"] != "ok":  # a standard error without its estimate would still tell of it
            row |= dict.fromkeys(("estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high"))
            row["counterfactual"] = None
        months.append(row)
    path = []
    if cumulated is not None and running is not None:
        path = [
            {"month": int(m), "estimate": e, "band_low": low, "band_high": high}
            for m, e, low, high in zip(
                cumulated.month, cumulated.estimate, running.band_low, running.band_high, strict=True
            )
        ]
    since = profile.after()
    shown = "ok" in since.status
    return dict(
        _plain(
            {
                "id": profile.id,
                "estimand": asdict(profile.estimand),
                "labels": profile.labels,
                "se_kind": profile.se_kind,
                "composition": profile.composition,
                "level": LEVEL,
                "months": months,
                "vcov": profile.vcov if shown else None,
                "lock_in": None if summary.lock_in is None else asdict(summary.lock_in),
                "cumulated": path,
                "summary": [asdict(m) if shown else asdict(m) | {"status": since.status[0]} for m in summary.measures],
            }
        )
    )


def _exhibit(exhibit: Exhibit, analysis: str) -> Json:
    kind = {Table: "table", Chart: "chart", Note: "note"}[type(exhibit)]
    body = _fields(exhibit)
    if isinstance(exhibit, Table):
        body["columns"] = [asdict(column) for column in exhibit.columns]
    if isinstance(exhibit, Chart):
        body["series"] = [asdict(line) for line in exhibit.series]
    return {"analysis": analysis, "type": kind} | _plain(body)
