"""The line from study file to results: read, check, cut the sample, estimate, judge, protect, write.

Each arrow of the architecture is one call here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit import gate, results
from evalkit.analyses import all_settings, method
from evalkit.effects import generator, subgroup_contrasts
from evalkit.errors import DesignError, Fault, StudyError
from evalkit.exhibits import Analysis
from evalkit.gate import Judgement
from evalkit.register.dialect import Notice, unheard
from evalkit.results import Results
from evalkit.sample import FlowRow, Sample, describe, extend, from_panel, from_register, from_table, judge_sample
from evalkit.study import Study, bind, read

Progress = Callable[[str], None]


def silent(step: str) -> None:
    """No progress."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: results, verdicts, and whether any primary estimate may be shown."""

    results: Results
    judgements: tuple[Judgement, ...]

    @property
    def primary_shown(self) -> bool:
        """False when every primary estimate is withheld: exit code 4."""
        primary = [o["name"] for o in self.results.document["study"]["protocol"]["outcomes"] if o["primary"]]
        return any(not j.withheld for j in self.judgements if j.outcome in primary)


def run(
    study_file: Path,
    progress: Progress = silent,
    *,
    blind: bool = False,
    earlier: Mapping[str, Any] | None = None,
    notice: Notice = unheard,
) -> Outcome:
    """Everything from a study file to a protected results document; nothing is written.

    Parameters
    ----------
    blind: withhold every estimate and keep the design: what ``evalkit check`` shows.
    earlier: the document of an earlier run of this study, which tells what its first results were based on.
    notice: is told how each file turned out to be written, before it is used.

    Raises
    ------
    StudyError, DataError, DesignError
        With all faults found at that stage.
    """
    study = read(Path(study_file), all_settings())
    settings = bind_all(study)
    progress("read")
    data, sample = load(study, progress, notice)
    return analyse(study, settings, data, sample, progress, blind=blind, earlier=earlier)


def bind_all(study: Study) -> list[Any]:
    """The settings of every analysis, validated before any data are read; all faults together."""
    bound, faults = [], []
    for index, spec in enumerate(study.analyses):
        module = method(spec.method)
        settings = bind(module.Settings, spec.settings, study, index)
        faults += module.faults(study, settings)
        bound.append(settings)
    if faults:
        raise StudyError(faults)
    return bound


def load(study: Study, progress: Progress = silent, notice: Notice = unheard) -> tuple[Any, Sample]:
    """The data of a study, checked, and the sample cut from them."""
    from evalkit import register

    if study.table is not None:
        table = register.read_table(study, notice)
        progress("sample")
        return table, from_table(study, table)
    if study.panel is not None:
        panel = register.read_panel(study, notice)
        progress("sample")
        return panel, from_panel(study, panel)
    tables = register.read(study, notice)
    progress("sample")
    return tables, from_register(study, tables)


def analyse(
    study: Study,
    settings: Sequence[Any],
    data: Any,
    sample: Sample,
    progress: Progress = silent,
    *,
    blind: bool = False,
    earlier: Mapping[str, Any] | None = None,
) -> Outcome:
    """Estimate, judge and protect."""
    analyses: list[Analysis] = []
    judgements: list[Judgement] = []
    for spec, chosen in zip(study.analyses, settings, strict=True):
        progress(f"analysis {spec.id}")
        module = method(spec.method)
        analysis = module.run(sample, chosen, generator(study.seed, spec.id), spec.id)
        analysis = replace(analysis, profiles=analysis.profiles + subgroup_contrasts(analysis.profiles))
        verdicts = gate.judge(analysis, study.gate.show_anyway)
        judgements += verdicts
        if blind:
            verdicts = tuple(replace(v, verdict="fail", shown_anyway="") for v in verdicts)
        analyses.append(gate.withhold(analysis, verdicts))
    if not judgements:
        raise DesignError(Fault("design.no_estimate"))
    progress("results")
    record = results.assemble(
        study,
        inputs=data.inputs,
        checks=(*data.findings, *sample.checks, *judge_sample(sample)),
        flow=_flow(sample, analyses),
        analyses=analyses,
        judgements=judgements,
        exhibits=describe(data, sample) if sample.source == "register" else (),
        earlier=earlier,
    )
    return Outcome(record, tuple(judgements))


def _flow(sample: Sample, analyses: Sequence[Analysis]) -> tuple[FlowRow, ...]:
    """The sample's flow, with whom the first analysis leaves out as its last steps."""
    rows = sample.flow
    for lost in analyses[0].lost:
        rows = extend(rows, lost)
    return rows
