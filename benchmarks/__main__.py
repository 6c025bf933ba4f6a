"""The command line of the benchmarks.

python -m benchmarks files --scale 0.5 --tiny 300000 --rounds 3
python -m benchmarks tree DIR --scale 0.5
python -m benchmarks tiny DIR --count 300000
python -m benchmarks mutate DIR --round 1
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.contender import Contender
from benchmarks.ours import Ours
from benchmarks.peers import Borg, ReferencePipe, Restic, TarZstd
from benchmarks.results import MILLION, TINY, TREE, Phase
from benchmarks.runner import Plan, Runner
from benchmarks.trees import make_tiny, make_tree, mutate

CONTENDERS: dict[str, type[Contender]] = {one.name: one for one in (Ours, Restic, Borg, TarZstd, ReferencePipe)}
_WORK = Path(__file__).resolve().parent.parent / ".bench"
_USUAL = (*TREE, *TINY, Phase.LIST, Phase.HELP)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 done; 1 something failed or was not restored as it was; 2 wrong usage."""
    options = _parser().parse_args(arguments)
    if options.verb == "tree":
        print(make_tree(options.directory, options.scale, options.seed), "bytes")
    elif options.verb == "tiny":
        print(make_tiny(options.directory, options.count, options.seed), "bytes")
    elif options.verb == "mutate":
        print(mutate(options.directory, options.round, options.seed))
    else:
        return _files(options)
    return 0


def _files(options: argparse.Namespace) -> int:
    Ours.locate(options.ours)
    chosen = {name: CONTENDERS[name] for name in options.contenders}
    versions = {name: version for name, one in chosen.items() if (version := one.version())}
    missing = [name for name in chosen if name not in versions]
    for name in missing:
        print(f"{name} is not installed and will not be measured", file=sys.stderr)
    if not versions:
        print("nothing to measure: no contender is installed", file=sys.stderr)
        return 2
    work = options.work.absolute()
    plan = Plan(
        work,
        options.scale,
        options.tiny,
        options.million_count,
        options.rounds,
        _phases(options),
        tuple(chosen[name] for name in versions),
    )
    work.mkdir(parents=True, exist_ok=True)
    for left in work.glob("run-*"):
        print(f"{left} is left from a run that was killed: remove it when none is running", file=sys.stderr)
    setting = report.Setting(versions, missing, options.rounds, options.scale)
    room = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    try:
        results = Runner(plan, room).run()
    finally:
        if not options.keep:
            shutil.rmtree(room, ignore_errors=True)
    written = report.write(work, setting, results)
    print(report.markdown(setting, results))
    print(f"written to {written} and {written.with_suffix('.md').name}", file=sys.stderr)
    return 1 if results.failures or results.differences.get(Ours.name) else 0


def _phases(options: argparse.Namespace) -> frozenset[Phase]:
    """The chosen phases and the first full backups that they stand on."""
    chosen = set(options.only or (_USUAL + MILLION if options.million else _USUAL))
    if not options.tiny:
        chosen -= set(TINY)
    for phases in (TREE, TINY, MILLION):
        if chosen.intersection(phases):
            chosen.add(phases[0])
    return frozenset(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    files = verbs.add_parser("files", help="measure ours and its peers on generated trees")
    files.add_argument("--scale", type=_scale, default=0.5, help="size of the tree; 0.5 is 1.07 GB (default)")
    files.add_argument("--tiny", type=int, default=300_000, metavar="COUNT", help="tiny files; 0 leaves them out")
    files.add_argument("--million", action="store_true", help="also ours' peak memory at a million tiny files")
    files.add_argument("--million-count", type=int, default=1_000_000, metavar="COUNT", help=argparse.SUPPRESS)
    files.add_argument("--rounds", type=int, default=3, help="rounds to take medians of (default 3)")
    files.add_argument("--work", type=Path, default=_WORK, metavar="DIR", help="where all is made (default .bench)")
    files.add_argument("--contenders", type=_contenders, default=list(CONTENDERS), metavar="A,B,…")
    files.add_argument("--only", type=_only, metavar="PHASE,…", help=f"of {', '.join(Phase)}")
    files.add_argument("--ours", metavar="PROGRAM", help="the chrono-backups to measure (default: beside this Python)")
    files.add_argument("--keep", action="store_true", help="keep the repositories and what was restored")
    for verb, what in (("tree", "the scraper's tree"), ("tiny", "the tiny files"), ("mutate", "1 %% changed in place")):
        maker = verbs.add_parser(verb, help=f"make {what}" if verb != "mutate" else what)
        maker.add_argument("directory", type=Path)
        maker.add_argument("--seed", type=int, default=1)
        if verb == "tree":
            maker.add_argument("--scale", type=float, default=1.0)
        elif verb == "tiny":
            maker.add_argument("--count", type=int, default=300_000)
        else:
            maker.add_argument("--round", type=int, default=1)
    return parser


def _scale(value: str) -> float:
    scale = float(value)
    if scale < 0.01:
        raise argparse.ArgumentTypeError(f"{value}: a tree smaller than scale 0.01 has too little to change")
    return scale


def _contenders(value: str) -> list[str]:
    names = value.split(",")
    for name in names:
        if name not in CONTENDERS:
            raise argparse.ArgumentTypeError(f"there is no contender {name!r}: choose of {', '.join(CONTENDERS)}")
    return names


def _only(value: str) -> list[Phase]:
    try:
        return [Phase(name) for name in value.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: choose of {', '.join(Phase)}") from None


if __name__ == "__main__":
    sys.exit(main())
