"""The process that reads tiny files ahead of a capture (``read_ahead`` starts it and speaks to it).

Run as a script, by itself, with three descriptors: requests in, replies out, and the shared memory, which is
divided into places. A request is ``place u32 | path size u32 | names size u32 | files u32``. The place starts
with the directory's absolute path, the names with NULs between them, and what the scan saw: ``ctime i64 …,
size i64 …, inode i64 …``. ``CONTROL`` bytes behind its start, the contents are laid one after another, each at
the offset that the sizes give. The place then starts with an ``i32`` a file: its size, or -1 for a file that
must be looked at more closely: it is not what the scan saw, can't be read, or has extended attributes. The
reply is one byte. So little is ever in the pipes that neither side can wait for the other.
"""

import os
import struct
import sys
from mmap import mmap

REQUEST = struct.Struct("<IIII")
CONTROL = 512 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _exactly(handle: int, size: int) -> bytes:
    """That many bytes, or fewer at the end."""
    parts = []
    while size:
        part = os.read(handle, size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _read(name: bytes, directory: int, view: memoryview, ctime: int, inode: int) -> bool:
    """Whether the file is as the scan saw it and its content, of the size of ``view`` less one, is in ``view``."""
    try:
        handle = os.open(name, _OPEN, dir_fd=directory)
    except OSError:
        return False
    try:
        done = os.readv(handle, (view,))  # one byte more than expected tells of one that has grown
        found = os.fstat(handle)
        return (
            done == len(view) - 1 == found.st_size
            and found.st_ctime_ns == ctime
            and found.st_ino == inode
            and not os.listxattr(handle)
        )
    except OSError:
        return False
    finally:
        os.close(handle)


def serve(requests: int, replies: int, memory: memoryview) -> None:
    """Answer requests until there are no more."""
    while len(request := _exactly(requests, REQUEST.size)) == REQUEST.size:
        place, path_size, names_size, files = REQUEST.unpack(request)
        body = bytes(memory[place : place + path_size + names_size + 24 * files])
        names = body[path_size : path_size + names_size].split(b"\0")
        numbers = memoryview(body)[path_size + names_size :]
        ctimes, sizes, inodes = (numbers[i * 8 * files : (i + 1) * 8 * files].cast("q") for i in range(3))
        found = memory[place : place + 4 * files].cast("i")
        try:
            directory = os.open(body[:path_size], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            directory = -1
        at = place + CONTROL
        for i, name in enumerate(names):
            size = sizes[i]
            sound = directory >= 0 and _read(name, directory, memory[at : at + size + 1], ctimes[i], inodes[i])
            found[i] = size if sound else -1
            at += size
        if directory >= 0:
            os.close(directory)
        os.write(replies, b".")


if __name__ == "__main__":
    requests, replies, shared = map(int, sys.argv[1:])
    serve(requests, replies, memoryview(mmap(shared, 0)))
    os._exit(0)
