"""Says in what two trees differ, byte for byte and attribute for attribute. The product's own code is not used.

| compared | of |
|---|---|
| name, type, mode, owner, mtime in nanoseconds, xattrs | every entry, the root too |
| size, content | regular files |
| target | symbolic links |
| device number | device nodes |
| which names are one inode | hard-linked files |

Directory sizes, inode numbers, atimes and ctimes are a file system's own and are left out, as is `security.selinux`,
which the target's policy sets. How much of a file is holes is a file system's choice too: `compare_sparseness`
reports it on its own.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_READ = 1 << 20
_POLICY = "security.selinux"
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def compare(a: Path, b: Path) -> list[str]:
    """Every difference between `a` and `b`, trees or single files, one line each in the order of the names."""
    left, right = _Tree(a), _Tree(b)
    out: list[str] = []
    for name in sorted(left.entries.keys() | right.entries.keys()):
        if name not in right.entries:
            out.append(f"{name!r}: only in {a}")
        elif name not in left.entries:
            out.append(f"{name!r}: only in {b}")
        else:
            out += [f"{name!r}: {difference}" for difference in _differences(left, right, name)]
    return out


def compare_sparseness(a: Path, b: Path) -> list[str]:
    """The files that have holes in `a` and take up more than in `a` (by over 64 KiB) in `b`, one line each."""
    left, right = _Tree(a), _Tree(b)
    out: list[str] = []
    for name, one in sorted(left.entries.items()):
        other = right.entries.get(name)
        if other is None or not (stat.S_ISREG(one.st_mode) and stat.S_ISREG(other.st_mode)):
            continue
        if one.st_blocks * 512 < one.st_size and other.st_blocks * 512 > one.st_blocks * 512 + (64 << 10):
            out.append(f"{name!r}: takes up {one.st_blocks * 512} bytes, {other.st_blocks * 512} in {b}")
    return out


class _Tree:
    """A tree's entries by relative name, and which names share an inode."""

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        self.entries: dict[str, os.stat_result] = {".": os.lstat(self.root)}
        inodes: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name, entry in self._walk(self.root, "") if stat.S_ISDIR(self.entries["."].st_mode) else ():
            self.entries[name] = entry
            if entry.st_nlink > 1 and not stat.S_ISDIR(entry.st_mode):
                inodes[entry.st_dev, entry.st_ino].append(name)
        self.links = {name: tuple(sorted(names)) for names in inodes.values() if len(names) > 1 for name in names}

    def path(self, name: str) -> str:
        return os.path.join(self.root, name) if name != "." else self.root

    def _walk(self, directory: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        pending = [(directory, prefix)]
        while pending:
            here, prefix = pending.pop()
            with os.scandir(here) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    yield name, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((entry.path, name + "/"))


def _differences(left: _Tree, right: _Tree, name: str) -> Iterator[str]:
    one, other = left.entries[name], right.entries[name]
    kind = stat.S_IFMT(one.st_mode)
    if kind != stat.S_IFMT(other.st_mode):
        yield f"is a {_type(one)}, a {_type(other)} in the other"
        return
    if one.st_mode != other.st_mode:
        yield f"mode {stat.S_IMODE(one.st_mode):04o}, {stat.S_IMODE(other.st_mode):04o} in the other"
    if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid):
        yield f"owner {one.st_uid}:{one.st_gid}, {other.st_uid}:{other.st_gid} in the other"
    if one.st_mtime_ns != other.st_mtime_ns:
        yield f"mtime {one.st_mtime_ns} ns, {other.st_mtime_ns} ns in the other"
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and one.st_rdev != other.st_rdev:
        yield f"device {one.st_rdev:#x}, {other.st_rdev:#x} in the other"
    if left.links.get(name) != right.links.get(name):
        yield f"one inode with {left.links.get(name, ())}, with {right.links.get(name, ())} in the other"
    here, there = left.path(name), right.path(name)
    if kind == stat.S_IFLNK and os.readlink(here) != os.readlink(there):
        yield f"points to {os.readlink(here)!r}, to {os.readlink(there)!r} in the other"
    if kind == stat.S_IFREG:
        if one.st_size != other.st_size:
            yield f"{one.st_size} bytes, {other.st_size} in the other"
        elif (offset := _first_difference(here, there)) is not None:
            yield f"content differs from byte {offset} on"
    if _xattrs(here) != _xattrs(there):
        yield f"xattrs {_xattrs(here)}, {_xattrs(there)} in the other"


def _first_difference(a: str, b: str) -> int | None:
    """The offset of the first byte that differs; None when the contents agree."""
    with open(a, "rb", buffering=0) as one, open(b, "rb", buffering=0) as other:  # noqa: PTH123 - read whole, unbuffered
        offset = 0
        while True:
            left, right = one.read(_READ), other.read(_READ)
            if left != right:
                pairs = enumerate(zip(left, right, strict=False))
                return offset + next((at for at, (x, y) in pairs if x != y), min(len(left), len(right)))
            if not left:
                return None
            offset += len(left)


def _xattrs(path: str) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without them has none
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names) if name != _POLICY}


def _type(entry: os.stat_result) -> str:
    return _TYPES.get(stat.S_IFMT(entry.st_mode), "thing of unknown type")
