"""Turns a run's results into Markdown tables for a reader and one JSON document for a program."""

import datetime
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import results as r
from benchmarks.results import MILLION, TINY, TREE, Phase, Results, Sample, TreeFacts
from benchmarks.targets import MEGABYTE, OURS, TARGETS

_SHOWN_DIFFERENCES = 20


@dataclass(frozen=True)
class Setting:
    """The circumstances of a run."""

    versions: dict[str, str]
    missing: list[str]
    rounds: int
    scale: float
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    memory_bytes: int = field(default_factory=lambda: os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    system: str = field(default_factory=platform.platform)
    python: str = field(default_factory=platform.python_version)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])


def document(setting: Setting, results: Results) -> str:
    """Everything that was found, as JSON: every sample, the medians and minima, the targets."""
    names = list(setting.versions)
    summary = [
        {
            "phase": phase,
            "contender": name,
            "median": {figure.__name__: results.middle(phase, name, figure) for figure in _FIGURES},
            "minimum": {figure.__name__: results.least(phase, name, figure) for figure in _FIGURES},
            "ours_divided_by_it": results.ratio(phase, OURS, name, r.seconds),
        }
        for phase in Phase
        for name in names
        if results.of(phase, name)
    ]
    targets = [
        {
            "what": target.what,
            "unit": target.unit,
            "bound": target.bound,
            "at_least": target.at_least,
            "figure": target.figure(results),
            "by_minima": target.minima(results) if target.minima else None,
            "met": target.met(results),
        }
        for target in TARGETS
    ]
    whole = {"setting": asdict(setting), "targets": targets, "summary": summary, **asdict(results)}
    return json.dumps(whole, indent=1) + "\n"


def markdown(setting: Setting, results: Results) -> str:
    """The tables."""
    names = [name for name in setting.versions if any(sample.contender == name for sample in results.samples)]
    sections = [
        _setting(setting, results),
        "## Targets\n\n" + _targets(results),
        "## Seconds: median (minimum), then ours ÷ it\n\n" + _seconds(results, names),
        "## CPU seconds: median\n\n" + _figures(results, names, r.cpu_seconds, _plain),
        "## Peak memory, MB: median\n\n" + _figures(results, names, r.peak_bytes, _megabytes),
        "## Stored after it, MB (added by it): median\n\n" + _stored(results, names),
        _restored(results),
        _failed(results),
    ]
    return "\n".join(section for section in sections if section)


_FIGURES = (r.seconds, r.cpu_seconds, r.peak_bytes, r.stored_bytes, r.added_bytes)


def _setting(setting: Setting, results: Results) -> str:
    lines = [
        f"{setting.date}, {setting.cores} cores, {setting.memory_bytes / 1e9:.0f} GB memory, {setting.system}, "
        f"Python {setting.python}, load before the run {setting.load_before:.2f}, rounds: {setting.rounds}",
        "",
    ]
    lines += [f"- {name}: {version}" for name, version in setting.versions.items()]
    lines += [f"- {name}: **not installed, not measured**" for name in setting.missing]
    lines += [
        f"- data `{name}`: {facts.files:,} files, {facts.bytes / 1e9:.2f} GB" for name, facts in results.trees.items()
    ]
    return "\n".join(lines) + "\n"


def _targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        found = target.figure(results)
        minima = target.minima(results) if target.minima else None
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g} {target.unit}".rstrip()
        verdict = {True: "met", False: "**missed**", None: "not measured"}[target.met(results)]
        rows.append((target.what, bound, _number(found), _number(minima), verdict))
    return _table(("what", "bound", "ours", "by minima", ""), rows)


def _seconds(results: Results, names: Sequence[str]) -> str:
    def cell(phase: Phase, name: str) -> str:
        middle, least = results.middle(phase, name, r.seconds), results.least(phase, name, r.seconds)
        if middle is None or least is None:
            return ""
        facts = _facts(results, phase)
        rate = f", {facts.bytes / MEGABYTE / middle:.0f} MB/s" if phase == Phase.FULL and facts else ""
        ratio = results.ratio(phase, OURS, name, r.seconds) if name != OURS else None
        compared = f", {ratio:.2f} ×" if ratio is not None else ""
        return f"{_number(middle)} ({_number(least)}){rate}{compared}"

    return _by_phase(results, names, cell)


def _figures(
    results: Results, names: Sequence[str], figure: Callable[[Sample], float], show: Callable[[float], str]
) -> str:
    def cell(phase: Phase, name: str) -> str:
        middle = results.middle(phase, name, figure)
        return "" if middle is None else show(middle)

    return _by_phase(results, names, cell)


def _stored(results: Results, names: Sequence[str]) -> str:
    def cell(phase: Phase, name: str) -> str:
        stored = results.middle(phase, name, r.stored_bytes)
        added = results.middle(phase, name, r.added_bytes)
        if stored is None or added is None or phase not in _WRITING:
            return ""
        return f"{stored / MEGABYTE:.1f} (+{added / MEGABYTE:.2f})"

    return _by_phase(results, names, cell)


_WRITING = (
    *(Phase.FULL, Phase.UNCHANGED, Phase.CHANGED),
    *(Phase.TINY_FULL, Phase.TINY_UNCHANGED, Phase.MILLION_FULL, Phase.MILLION_UNCHANGED),
)


def _by_phase(results: Results, names: Sequence[str], cell: Callable[[Phase, str], str]) -> str:
    rows = []
    for phase in Phase:
        cells = [cell(phase, name) for name in names]
        if any(cells):
            rows.append((phase.value, *cells))
    return _table(("", *names), rows)


def _facts(results: Results, phase: Phase) -> TreeFacts | None:
    for phases, name in ((TREE, "tree"), (TINY, "tiny"), (MILLION, "million")):
        if phase in phases:
            return results.trees.get(name)
    return None


def _restored(results: Results) -> str:
    if not results.differences:
        return ""
    lines = ["## What was restored, compared byte for byte and attribute for attribute", ""]
    for name, found in results.differences.items():
        sparse = results.sparseness.get(name, [])
        lines.append(f"- {name}: {_count(found)}; files that lost their holes: {len(sparse)}")
        if name == OURS:
            lines += [f"  - {difference}" for difference in found[:_SHOWN_DIFFERENCES]]
    return "\n".join(lines) + "\n"


def _count(found: Sequence[str]) -> str:
    if not found:
        return "no difference"
    kinds: dict[str, int] = {}
    for difference in found:
        kind = difference.rpartition("': ")[2].split()[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    return f"{len(found)} differences (" + ", ".join(f"{kind} {count}" for kind, count in kinds.items()) + ")"


def _failed(results: Results) -> str:
    if not results.failures:
        return ""
    lines = [f"- {one.phase}, {one.contender}, round {one.round}: {one.message}" for one in results.failures]
    return "## Failed\n\n" + "\n".join(lines) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if 0 < value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _plain(value: float) -> str:
    return f"{value:.1f}"


def _megabytes(value: float) -> str:
    return f"{value / MEGABYTE:.0f}"


def write(directory: Path, setting: Setting, results: Results) -> Path:
    """Write both beside each other; the path of the JSON document."""
    stamp = setting.date.replace(":", "").replace("-", "").replace("+0000", "Z")
    (directory / f"results-{stamp}.md").write_text(markdown(setting, results))
    path = directory / f"results-{stamp}.json"
    path.write_text(document(setting, results))
    return path
