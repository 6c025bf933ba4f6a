"""What a run found: one sample per timed command, and the figures that the tables are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median


class Phase(StrEnum):
    """What is measured, in the order in which a round goes through it."""

    FULL = "full"
    UNCHANGED = "unchanged"
    RESTORE = "restore"
    VERIFY = "verify"
    CHANGED = "changed"
    TINY_FULL = "tiny-full"
    TINY_UNCHANGED = "tiny-unchanged"
    MILLION_FULL = "million-full"
    MILLION_UNCHANGED = "million-unchanged"
    MILLION_RESTORE = "million-restore"
    MILLION_VERIFY = "million-verify"
    LIST = "list"
    HELP = "help"


TREE = (Phase.FULL, Phase.UNCHANGED, Phase.RESTORE, Phase.VERIFY, Phase.CHANGED)
TINY = (Phase.TINY_FULL, Phase.TINY_UNCHANGED)
MILLION = (Phase.MILLION_FULL, Phase.MILLION_UNCHANGED, Phase.MILLION_RESTORE, Phase.MILLION_VERIFY)
ADDING = (Phase.UNCHANGED, Phase.CHANGED, Phase.TINY_UNCHANGED, Phase.MILLION_UNCHANGED)
"""Phases that back up into a repository that has a backup already."""


@dataclass(frozen=True)
class Sample:
    """One timed command. `stored_bytes` is the repository's size after it, `added_bytes` what it grew by."""

    phase: Phase
    contender: str
    round: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stored_bytes: int
    added_bytes: int


@dataclass(frozen=True)
class Failure:
    """A command that did not succeed."""

    phase: Phase
    contender: str
    round: int
    message: str


@dataclass(frozen=True)
class TreeFacts:
    """How large a tree is."""

    files: int
    bytes: int


@dataclass
class Results:
    """Everything a run found. `differences` are a restored tree's from its original, by contender."""

    trees: dict[str, TreeFacts] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    differences: dict[str, list[str]] = field(default_factory=dict)
    sparseness: dict[str, list[str]] = field(default_factory=dict)

    def of(self, phase: Phase, contender: str) -> list[Sample]:
        """The samples of one phase and contender, in the order of the rounds."""
        return [sample for sample in self.samples if sample.phase == phase and sample.contender == contender]

    def middle(self, phase: Phase, contender: str, figure: Callable[[Sample], float]) -> float | None:
        """The median of a figure over the rounds; None where nothing was measured."""
        found = [figure(sample) for sample in self.of(phase, contender)]
        return median(found) if found else None

    def least(self, phase: Phase, contender: str, figure: Callable[[Sample], float]) -> float | None:
        """The minimum of a figure over the rounds; None where nothing was measured."""
        return min((figure(sample) for sample in self.of(phase, contender)), default=None)

    def peak(self, phases: tuple[Phase, ...], contender: str) -> float | None:
        """The highest peak memory in any of the phases and rounds, in bytes."""
        return max((sample.peak_bytes for phase in phases for sample in self.of(phase, contender)), default=None)

    def ratio(self, phase: Phase, one: str, other: str, figure: Callable[[Sample], float]) -> float | None:
        """`one`'s median ÷ `other`'s; None where either is missing."""
        return divided(self.middle(phase, one, figure), self.middle(phase, other, figure))

    def ratio_of_minima(self, phase: Phase, one: str, other: str, figure: Callable[[Sample], float]) -> float | None:
        """`one`'s minimum ÷ `other`'s; None where either is missing."""
        return divided(self.least(phase, one, figure), self.least(phase, other, figure))


def divided(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def seconds(sample: Sample) -> float:
    return sample.seconds


def cpu_seconds(sample: Sample) -> float:
    return sample.cpu_seconds


def peak_bytes(sample: Sample) -> float:
    return sample.peak_bytes


def stored_bytes(sample: Sample) -> float:
    return sample.stored_bytes


def added_bytes(sample: Sample) -> float:
    return sample.added_bytes
