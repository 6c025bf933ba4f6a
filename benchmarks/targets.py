"""The figures the product is held to, each with its bound, and how ours is read from a run's results."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import results as r
from benchmarks.results import MILLION, TREE, Phase, Results, Sample, divided

MEGABYTE = 1_000_000
OURS, RESTIC, BORG, TAR, PIPE = "ours", "restic", "borg", "tar-zstd", "pipe"


@dataclass(frozen=True)
class Target:
    """One bound. `figure` reads ours; `minima`, for a ratio, reads the same from the minima of the rounds."""

    what: str
    unit: str
    bound: float
    figure: Callable[[Results], float | None]
    minima: Callable[[Results], float | None] | None = None
    at_least: bool = False

    def met(self, results: Results) -> bool | None:
        """Whether the bound holds, by the medians; None when it was not measured."""
        found = self.figure(results)
        if found is None:
            return None
        return found >= self.bound if self.at_least else found <= self.bound


def _time(what: str, phase: Phase, peer: str, bound: float) -> Target:
    return _ratio(what, phase, peer, bound, r.seconds)


def _ratio(what: str, phase: Phase, peer: str, bound: float, figure: Callable[[Sample], float]) -> Target:
    return Target(
        what,
        f"× {peer}",
        bound,
        lambda results: results.ratio(phase, OURS, peer, figure),
        lambda results: results.ratio_of_minima(phase, OURS, peer, figure),
    )


def _throughput(what: str, phase: Phase, peer: str, bound: float) -> Target:
    """Of the same bytes, so it is the peer's time ÷ ours."""
    return Target(
        what,
        f"× {peer}",
        bound,
        lambda results: results.ratio(phase, peer, OURS, r.seconds),
        lambda results: results.ratio_of_minima(phase, peer, OURS, r.seconds),
        at_least=True,
    )


def _megabytes(results: Results, phases: tuple[Phase, ...]) -> float | None:
    return divided(results.peak(phases, OURS), MEGABYTE)


def _growth(results: Results) -> float | None:
    """How much faster than the number of files the peak grows from the tiny files to the million: 1 is linear."""
    small = results.peak((Phase.TINY_FULL, Phase.TINY_UNCHANGED), OURS)
    large = results.peak((Phase.MILLION_FULL, Phase.MILLION_UNCHANGED), OURS)
    if small is None or large is None:
        return None
    files = results.trees["million"].files / results.trees["tiny"].files
    return large / small / files


def _differences(results: Results) -> float | None:
    return len(results.differences[OURS]) if OURS in results.differences else None


TARGETS = (
    _throughput("first full of the tree, throughput", Phase.FULL, TAR, 1.0),
    _throughput("first full of the tree, throughput", Phase.FULL, RESTIC, 3.0),
    _throughput("first full of the tree, throughput", Phase.FULL, BORG, 2.5),
    _time("first full of the tiny files, time", Phase.TINY_FULL, PIPE, 1.0),
    _ratio("first full of the tiny files, stored", Phase.TINY_FULL, RESTIC, 0.4, r.stored_bytes),
    _time("nothing changed in the tree, time", Phase.UNCHANGED, RESTIC, 0.7),
    _time("nothing changed in the tiny files, time", Phase.TINY_UNCHANGED, RESTIC, 0.3),
    _time("1 % of the tree changed, time", Phase.CHANGED, RESTIC, 0.7),
    _ratio("1 % of the tree changed, bytes added", Phase.CHANGED, RESTIC, 1.0, r.added_bytes),
    _time("full restore, time", Phase.RESTORE, RESTIC, 0.7),
    Target("full restore, differences in bytes and attributes", "", 0, _differences),
    _time("every byte verified, time", Phase.VERIFY, RESTIC, 0.6),
    _ratio("repository of the tree, size", Phase.FULL, RESTIC, 0.97, r.stored_bytes),
    Target("peak memory on the tree", "MB", 200, lambda results: _megabytes(results, TREE)),
    Target("peak memory at 1,000,000 files", "MB", 400, lambda results: _megabytes(results, MILLION)),
    Target("its growth from the tiny files to the million", "× linear", 1.0, _growth),
    Target("list of 1,000 backups", "s", 1.0, lambda results: results.middle(Phase.LIST, OURS, r.seconds)),
    Target("start-up of --help", "s", 0.150, lambda results: results.middle(Phase.HELP, OURS, r.seconds)),
)
