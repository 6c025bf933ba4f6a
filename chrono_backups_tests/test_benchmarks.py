"""The benchmarks' data never changes, their measures are true, and the demo's site and comparison can be relied on."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measure import Command, CommandFailed, run
from benchmarks.report import Setting, markdown
from benchmarks.results import Failure, Phase, Results, Sample, TreeFacts
from benchmarks.targets import TARGETS
from benchmarks.trees import Changes, make_tiny, make_tree, mutate
from demo.compare import compare, compare_sparseness
from demo.site import build_site, change_site

# Of the trees that the published figures were measured on (`shared/bench/mkfiles.py` of the project's start).
TREE_DIGEST = "aee75b96f6ea0a0b67e9e87f266a74ec"
TINY_DIGEST = "fc820f8a7cbf0c110f4455de29665129"
MUTATED_DIGEST = "e8649dc1352bd7e474cf190bba8473ff"


def digest(root: Path) -> str:
    """Of all files' names and bytes."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        total.update(b"%s\0%d\0" % (os.fsencode(path.relative_to(root)), len(content)) + content)
    return total.hexdigest()


def make_skeleton(root: Path) -> Path:
    """As many files as `mutate` needs to do one of everything, and few bytes."""
    for number in range(2100):
        path = root / f"data/site{number % 7:02d}/page-{number:06d}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%06d" % number * 500)
    for directory, count in (("media", 4), ("logs", 3)):
        (root / directory).mkdir()
        for number in range(count):
            (root / directory / f"{number}").write_bytes(b"%04d" % number * 5000)
    return root


class TestTrees:
    def test_the_tree_is_the_one_that_was_published(self, tmp_path: Path) -> None:
        size = make_tree(tmp_path, 0.005)
        assert size == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert digest(tmp_path) == TREE_DIGEST

    def test_the_tiny_files_are_the_ones_that_were_published(self, tmp_path: Path) -> None:
        make_tiny(tmp_path, 350)
        assert sum(1 for path in tmp_path.rglob("*") if path.is_file()) == 300, "counted in hundreds"
        assert digest(tmp_path) == TINY_DIGEST

    def test_the_changes_are_the_ones_that_were_published(self, tmp_path: Path) -> None:
        changes = mutate(make_skeleton(tmp_path), 1)
        assert changes == Changes(
            edited=9, inserted=5, new=4, deleted=4, renamed=1, large_inserted=3, appended=1, fresh_bytes=2074373
        )
        assert digest(tmp_path) == MUTATED_DIGEST

    def test_another_seed_gives_other_bytes(self, tmp_path: Path) -> None:
        make_tiny(tmp_path, 100, seed=2)
        other = tmp_path / "k00/d00000/f000.json"
        assert other.read_bytes()[:6] == b'{"id":'
        assert digest(tmp_path) != TINY_DIGEST


def command(tmp_path: Path, *stages: str, output: Path | None = None) -> Command:
    """A pipe of Python programs."""
    return Command(tuple((sys.executable, "-S", "-c", stage) for stage in stages), tmp_path, dict(os.environ), output)


class TestMeasure:
    def test_a_command_costs_what_it_takes(self, tmp_path: Path) -> None:
        busy = "import time; b = bytearray(100_000_000); t = time.process_time()\nwhile time.process_time() < t + .3: 0"
        cost = run(command(tmp_path, busy), tmp_path / "log")
        assert cost.seconds >= 0.3
        assert 0.3 <= cost.cpu_seconds <= cost.seconds * 1.5
        assert 100e6 <= cost.peak_bytes <= 160e6

    def test_a_pipe_holds_the_sum_of_its_stages(self, tmp_path: Path) -> None:
        hold = "import time, sys; b = bytearray(60_000_000); time.sleep(3); sys.stdout.write(sys.stdin.read() + 'x')"
        cost = run(command(tmp_path, hold, hold, output=tmp_path / "out"), tmp_path / "log")
        assert (tmp_path / "out").read_text() == "xx"
        assert 120e6 <= cost.peak_bytes <= 200e6

    def test_what_a_child_holds_counts(self, tmp_path: Path) -> None:
        child = "import time; b = bytearray(80_000_000); time.sleep(3)"
        cost = run(
            command(tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])"),
            tmp_path / "log",
        )
        assert 80e6 <= cost.peak_bytes <= 160e6

    def test_a_failing_stage_is_named_with_what_it_said(self, tmp_path: Path) -> None:
        broken = command(tmp_path, "import sys; sys.exit('the disk is on fire')", "import sys; sys.stdin.read()")
        with pytest.raises(CommandFailed, match=r"python.* exit code 1: the disk is on fire"):
            run(broken, tmp_path / "log")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--scale 0.001", "a tree smaller than scale 0.01 has too little to change"),
        ("--contenders ours,bacula", "there is no contender 'bacula': choose of ours, restic, borg, tar-zstd, pipe"),
        ("--only fast", "'fast' is not a valid Phase: choose of full, unchanged, "),
    ],
)
def test_wrong_usage(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["files", *arguments.split()])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(not (shutil.which("tar") and shutil.which("zstd")), reason="needs tar and zstd")
def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "files --scale 0.01 --tiny 200 --rounds 2 --contenders ours,tar-zstd --ours /nowhere/chrono-backups"
    assert main([*arguments.split(), "--work", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "ours is not installed" in said.err
    assert "- ours: **not installed, not measured**" in said.out
    (written,) = tmp_path.glob("results-*.json")
    found = json.loads(written.read_text())
    assert [(one["phase"], one["round"]) for one in found["samples"]] == [
        *((phase, number) for number in (1, 2) for phase in ("full", "restore", "verify")),
        *(("tiny-full", number) for number in (1, 2)),
    ]
    assert found["setting"]["missing"] == ["ours"]
    assert not list(tmp_path.glob("run-*")), "what was measured is gone"
    assert written.with_suffix(".md").read_text() in said.out


def sample(phase: Phase, contender: str, number: int, seconds: float, megabytes: int = 10) -> Sample:
    return Sample(phase, contender, number, seconds, seconds, megabytes * 1_000_000, 5_000_000, 1_000_000)


def test_targets_go_by_the_medians() -> None:
    results = Results(trees={"tree": TreeFacts(10, 1_000_000_000)})
    for number, (ours, restic) in enumerate([(2.0, 6.5), (9.0, 6.1), (2.1, 60.0)], 1):
        results.samples += [sample(Phase.FULL, "ours", number, ours, 150), sample(Phase.FULL, "restic", number, restic)]
    results.samples.append(sample(Phase.HELP, "ours", 1, 0.2))
    results.failures.append(Failure(Phase.VERIFY, "borg", 1, "out of space"))
    verdicts = {(target.what, target.unit): target.met(results) for target in TARGETS}
    assert verdicts["first full of the tree, throughput", "× restic"] is True
    assert verdicts["first full of the tree, throughput", "× borg"] is None
    assert verdicts["repository of the tree, size", "× restic"] is False
    assert verdicts["peak memory on the tree", "MB"] is True
    assert verdicts["start-up of --help", "s"] is False
    table = markdown(Setting({"ours": "1", "restic": "2"}, [], 3, 0.5), results)
    assert "| first full of the tree, throughput | ≥ 3 × restic | 3.10 | 3.05 | met |" in table
    assert "| full | 2.10 (2.00), 476 MB/s | 6.50 (6.10), 154 MB/s, 0.32 × |" in table
    assert "- verify, borg, round 1: out of space" in table


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, Path]:
    """A small tree and its copy, alike in everything."""
    one = tmp_path / "one"
    (one / "below/empty").mkdir(parents=True)
    (one / "file").write_bytes(b"some content")
    (one / "twin").hardlink_to(one / "file")
    (one / "alone").write_bytes(b"some content")
    (one / "link").symlink_to("file")
    (one / "name\nwith \udcff").write_bytes(b"")
    subprocess.run(["cp", "-a", str(one), str(tmp_path / "other")], check=True)
    return one, tmp_path / "other"


def keep_time(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def changed(path: Path) -> None:
        before = path.lstat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)

    return changed


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def unlink_twin(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def become_a_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


class TestCompare:
    def test_alike(self, twins: tuple[Path, Path]) -> None:
        assert compare(*twins) == []
        assert compare_sparseness(*twins) == []

    @pytest.mark.parametrize(
        ("name", "change", "said"),
        [
            ("alone", keep_time(lambda path: path.write_bytes(b"some_content")), "content differs from byte 4 on"),
            ("alone", keep_time(lambda path: path.write_bytes(b"some")), "12 bytes, 4 in the other"),
            ("alone", lambda path: path.chmod(0o4755), "mode 0644, 4755 in the other"),
            ("below/empty", lambda path: os.utime(path, ns=(1, 2)), "ns, 2 ns in the other"),
            ("link", keep_time(retarget), "points to 'file', to 'elsewhere' in the other"),
            ("twin", keep_time(unlink_twin), "one inode with ('file', 'twin'), with () in the other"),
            ("alone", become_a_socket, "is a file, a socket in the other"),
            ("name\nwith \udcff", lambda path: path.unlink(), "only in"),
        ],
    )
    def test_a_difference(self, twins: tuple[Path, Path], name: str, change: Callable[[Path], None], said: str) -> None:
        path = twins[1] / name
        parent = path.parent.stat()
        change(path)
        os.utime(path.parent, ns=(parent.st_atime_ns, parent.st_mtime_ns))
        found = compare(*twins)
        assert any(line.startswith(f"{name!r}: ") and said in line for line in found)
        assert len(found) == (2 if name == "twin" else 1), found

    def test_attributes_that_need_the_file_system(self, twins: tuple[Path, Path]) -> None:
        try:
            os.setxattr(twins[1] / "alone", "user.note", b"kept")
        except OSError:
            pytest.skip("this file system has no xattrs")
        assert compare(*twins) == ["'alone': xattrs {}, {'user.note': b'kept'} in the other"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_owners(self, twins: tuple[Path, Path]) -> None:
        os.chown(twins[1] / "link", 12, 34, follow_symlinks=False)
        assert compare(*twins) == ["'link': owner 0:0, 12:34 in the other"]

    def test_holes_are_told_apart_from_differences(self, twins: tuple[Path, Path]) -> None:
        for tree, content in zip(twins, (None, bytes(1 << 20)), strict=True):
            (tree / "holes").touch()
            if content is None:
                os.truncate(tree / "holes", 1 << 20)
            else:
                (tree / "holes").write_bytes(content)
            os.utime(tree / "holes", ns=(1, 1))
            os.utime(tree, ns=(1, 1))
        assert compare(*twins) == []
        assert [line.split(":")[0] for line in compare_sparseness(*twins)] == ["'holes'"]


def test_the_site_is_the_same_every_time(tmp_path: Path) -> None:
    one, other = build_site(tmp_path / "one"), build_site(tmp_path / "other")
    files = [path for path in one.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert 1_900 <= len(files) <= 2_200
    assert 25e6 <= sum(path.stat().st_blocks * 512 for path in files) <= 45e6
    assert all(path.exists() for path in (*one.files, *one.configuration))
    assert compare(one.root, other.root) == []
    before = digest(one.root / "logs")
    for day in (1, 2):
        for site in (one, other):
            change_site(site.root, day)
    assert compare(one.root, other.root) == []
    assert digest(one.root / "logs") != before
