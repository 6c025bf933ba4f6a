"""The process that reads tiny files ahead of a capture (``read_ahead`` starts it and speaks to it).

Run as a script, by itself, with three descriptors: requests in, replies out, and the shared memory.
A request is ``path size u32 | names size u32 | files u32 | place u32``, the directory's absolute path, the
names with NULs between them, and what the scan saw: ``ctime i64 …, size u64 …, inode u64 …``. The contents are
laid one after another into the shared memory at ``place``, each at the offset that the sizes give; the reply
is an ``i32`` a file: its size, or -1 for a file that must be looked at more closely: it is not what the scan
saw, can't be read, or has extended attributes.
"""

import os
import struct
import sys
from array import array
from mmap import mmap

REQUEST = struct.Struct("<IIII")
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
    while len(header := _exactly(requests, REQUEST.size)) == REQUEST.size:
        path_size, names_size, files, place = REQUEST.unpack(header)
        body = _exactly(requests, path_size + names_size + 24 * files)
        names = body[path_size : path_size + names_size].split(b"\0")
        numbers = memoryview(body)[path_size + names_size :]
        ctimes, sizes, inodes = (numbers[i * 8 * files : (i + 1) * 8 * files].cast("q") for i in range(3))
        reply = array("i", bytes(4 * files))
        try:
            directory = os.open(body[:path_size], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            directory = -1
        for i, name in enumerate(names):
            size = sizes[i]
            sound = directory >= 0 and _read(name, directory, memory[place : place + size + 1], ctimes[i], inodes[i])
            reply[i] = size if sound else -1
            place += size
        if directory >= 0:
            os.close(directory)
        os.write(replies, reply)


if __name__ == "__main__":
    requests, replies, shared = map(int, sys.argv[1:])
    with mmap(shared, 0) as memory:
        serve(requests, replies, memoryview(memory))
        os._exit(0)
