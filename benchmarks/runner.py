"""Takes all contenders through the phases, alternating: in every phase each has its turn, and every round starts
with another. Nothing is deleted before the last of them is done, and every repository and restore has a fresh
directory: ext4 makes files slowly for a while after many were deleted.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.contender import Contender
from benchmarks.measure import Command, CommandFailed, run
from benchmarks.ours import Ours
from benchmarks.results import ADDING, MILLION, TINY, TREE, Failure, Phase, Results, Sample, TreeFacts
from benchmarks.trees import make_tiny, make_tree, mutate
from demo.compare import compare, compare_sparseness

LISTED = 1000
C = TypeVar("C", bound=Contender)
_LIST_ROUNDS, _HELP_ROUNDS = 5, 11


@dataclass(frozen=True)
class Plan:
    """What a run measures, and where."""

    work: Path
    scale: float
    tiny: int
    million: int
    rounds: int
    phases: frozenset[Phase]
    contenders: tuple[type[Contender], ...]


class Runner:
    """One run in a directory of its own below the work directory, which is gone when it has ended."""

    def __init__(self, plan: Plan, room: Path) -> None:
        self.plan = plan
        self.results = Results()
        self._room = room

    def run(self) -> Results:
        """Measure all that is planned."""
        if self._wants(TREE):
            tree = self._copy(self._made("tree", f"tree-{self.plan.scale:g}", self._make_tree))
            for number in range(1, self.plan.rounds + 1):
                self._tree_round(tree, number)
        if self._wants(TINY):
            tiny = self._made("tiny", f"tiny-{self.plan.tiny}", self._make_tiny)
            for number in range(1, self.plan.rounds + 1):
                self._tiny_round(tiny, number)
        if Ours in self.plan.contenders:
            if self._wants(MILLION):
                self._million(self._made("million", f"tiny-{self.plan.million}", self._make_million))
            if self._wants((Phase.LIST,)):
                self._list()
            self._phase(Phase.HELP, [Ours(self._room / "help")] * _HELP_ROUNDS, Ours.help)
        return self.results

    def _tree_round(self, tree: Path, number: int) -> None:
        contenders = self._prepared(f"tree-{number}", number)
        self._phase(Phase.FULL, contenders, lambda one: _backup(one, tree, True), number)
        self._phase(Phase.UNCHANGED, contenders, lambda one: _backup(one, tree, False), number)
        self._phase(Phase.RESTORE, contenders, _restore, number)
        if number == 1 and Phase.RESTORE in self.plan.phases:
            self._compare(tree, contenders)
        self._phase(Phase.VERIFY, contenders, lambda one: one.verify(), number)
        if Phase.CHANGED in self.plan.phases and any(one.adds for one in contenders):
            mutate(tree, number)
        self._phase(Phase.CHANGED, contenders, lambda one: _backup(one, tree, False), number)

    def _tiny_round(self, tiny: Path, number: int) -> None:
        contenders = self._prepared(f"tiny-{number}", number)
        self._phase(Phase.TINY_FULL, contenders, lambda one: _backup(one, tiny, True), number)
        self._phase(Phase.TINY_UNCHANGED, contenders, lambda one: _backup(one, tiny, False), number)

    def _million(self, tree: Path) -> None:
        ours = self._prepare(Ours(self._room / "million" / "ours"))
        self._phase(Phase.MILLION_FULL, ours, lambda one: _backup(one, tree, True))
        self._phase(Phase.MILLION_UNCHANGED, ours, lambda one: _backup(one, tree, False))
        self._phase(Phase.MILLION_RESTORE, ours, _restore)
        self._phase(Phase.MILLION_VERIFY, ours, lambda one: one.verify())

    def _list(self) -> None:
        ours = Ours(self._room / "list")
        source = self._room / "listed"
        source.mkdir()
        (source / "file").write_text("one small file")
        ours.protect(source)
        listed = self._prepare(ours)
        if listed and self._done(Phase.LIST, ours, ours.many(LISTED), 1):
            self._phase(Phase.LIST, listed * _LIST_ROUNDS, Ours.list)
            found = ours.listed()
            if found != LISTED:
                message = f"list names {found} backups where {LISTED} were taken"
                self.results.failures.append(Failure(Phase.LIST, ours.name, 1, message))

    def _prepared(self, name: str, number: int) -> list[Contender]:
        """Every contender with a new repository, the first one another in each round."""
        shift = number % len(self.plan.contenders)
        turns = self.plan.contenders[shift:] + self.plan.contenders[:shift]
        return [
            prepared for contender in turns for prepared in self._prepare(contender(self._room / name / contender.name))
        ]

    def _prepare(self, one: C) -> list[C]:
        command = one.prepare()
        ready = command is None or self._done(Phase.FULL, one, command, 0)
        return [one] if ready else []

    def _done(self, phase: Phase, one: Contender, command: Command, number: int) -> bool:
        """Run something that is not timed; whether it succeeded."""
        try:
            run(command, one.room / "preparation.log")
        except (CommandFailed, OSError) as error:
            self._fail(phase, one, number, error)
            return False
        return True

    def _fail(self, phase: Phase, one: Contender, number: int, error: Exception) -> None:
        _say(f"{phase} {one.name}: FAILED, {error}")
        self.results.failures.append(Failure(phase, one.name, number, str(error)))

    def _phase(self, phase: Phase, contenders: list[C], command: Callable[[C], Command], number: int = 0) -> None:
        """Give each contender its turn. One that fails its first full is out of what follows."""
        if phase not in self.plan.phases:
            return
        for turn, one in enumerate(list(contenders), 1):
            if phase in ADDING and not one.adds:
                continue
            before = one.stored()
            try:
                cost = run(command(one), one.room / f"{phase}-{number or turn}.log")
            except (CommandFailed, OSError) as error:
                self._fail(phase, one, number or turn, error)
                if phase in (Phase.FULL, Phase.TINY_FULL, Phase.MILLION_FULL):
                    contenders.remove(one)
                continue
            after = one.stored()
            sample = Sample(
                phase, one.name, number or turn, cost.seconds, cost.cpu_seconds, cost.peak_bytes, after, after - before
            )
            self.results.samples.append(sample)
            _say(
                f"round {sample.round} {phase} {one.name}: {cost.seconds:.2f} s, {cost.cpu_seconds:.1f} s CPU, "
                f"{cost.peak_bytes / 1e6:.0f} MB memory, {after / 1e6:.1f} MB stored (+{sample.added_bytes / 1e6:.1f})"
            )

    def _compare(self, tree: Path, contenders: Sequence[Contender]) -> None:
        """Once and untimed: what came back, against what was there."""
        for one in contenders:
            restored = one.restored(one.room / "restored", tree)
            if restored.exists():
                self.results.differences[one.name] = compare(tree, restored)
                self.results.sparseness[one.name] = compare_sparseness(tree, restored)
            else:
                self.results.differences[one.name] = [f"nothing was restored to {restored.relative_to(self._room)}"]
            _say(f"restored by {one.name}: {len(self.results.differences[one.name])} differences")

    def _wants(self, phases: Sequence[Phase]) -> bool:
        return not self.plan.phases.isdisjoint(phases)

    def _made(self, name: str, directory: str, make: Callable[[Path], int]) -> Path:
        """The generated tree, kept in the work directory from run to run; half-made ones are made again."""
        tree = self.plan.work / "trees" / directory
        if not tree.exists():
            unfinished = tree.with_name(directory + ".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            _say(f"making {directory}")
            make(unfinished)
            unfinished.rename(tree)
        self.results.trees[name] = _facts(tree)
        return tree

    def _make_tree(self, root: Path) -> int:
        return make_tree(root, self.plan.scale)

    def _make_tiny(self, root: Path) -> int:
        return make_tiny(root, self.plan.tiny)

    def _make_million(self, root: Path) -> int:
        return make_tiny(root, self.plan.million)

    def _copy(self, tree: Path) -> Path:
        """A copy that may be changed, times and all."""
        copied = self._room / "tree"
        subprocess.run(["cp", "-a", str(tree), str(copied)], check=True)
        return copied


def _backup(one: Contender, tree: Path, first: bool) -> Command:
    """Its backup, with the tree in the page cache: borg drops what it has read from there (`POSIX_FADV_DONTNEED`),
    and whoever came next paid for it: 32 s instead of 3.4 s for `tar | zstd` on 300,000 tiny files.
    """
    _warm(tree)
    return one.backup(tree, first)


def _restore(one: Contender) -> Command:
    target = one.room / "restored"
    target.mkdir()
    return one.restore(target)


def _warm(tree: Path) -> None:
    """Read everything once."""
    buffers = [bytearray(1 << 20)]
    for directory, _, names in os.walk(tree):
        for name in names:
            file = os.open(os.path.join(directory, name), os.O_RDONLY)
            while os.readv(file, buffers):
                pass
            os.close(file)


def _facts(tree: Path) -> TreeFacts:
    files = size = 0
    for directory, _, names in os.walk(tree):
        files += len(names)
        size += sum(os.lstat(os.path.join(directory, name)).st_size for name in names)
    return TreeFacts(files, size)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
