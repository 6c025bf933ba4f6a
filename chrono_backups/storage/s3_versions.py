"""The versions that a bucket keeps of each key, and which of them is the object."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from chrono_backups.storage.base import ObjectInfo
from chrono_backups.storage.keys import is_key
from chrono_backups.storage.lasting import is_lasting

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PAGE = 1000


@dataclass(frozen=True)
class Version:
    """One version of a key; ``size`` is None of a delete marker."""

    key: str
    version_id: str
    size: int | None
    newest: bool


class Versions:
    """Reads the versions below a prefix. Errors are the SDK's.

    Objects are written once, so of a key that is to last the oldest version is the object. Whatever lies over it
    was put there by somebody else, and so was a delete marker.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._lock = threading.Lock()
        self._looked_at: set[str] = set()
        self._overlaid: dict[str, str] = {}

    def pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """The objects whose key starts with ``prefix``, ascending; of what is to last, the oldest version."""
        overlaid: dict[str, str] = {}
        for keys in self._keys(prefix):
            page = []
            for versions in keys:
                one = the_object(versions)
                if one is not None and one.size is not None:
                    page.append(ObjectInfo(one.key, one.size))
                    if not one.newest:
                        overlaid[one.key] = one.version_id
            yield page
        with self._lock:
            self._overlaid = {key: one for key, one in self._overlaid.items() if not key.startswith(prefix)} | overlaid
            self._looked_at.add(prefix)

    def oldest_where_overlaid(self, key: str) -> str | None:
        """The id of the version to read where it is not the newest. The folder is looked over once."""
        folder, slash, _ = key.partition("/")
        with self._lock:
            known = any(key.startswith(prefix) for prefix in self._looked_at)
        if not known:
            for _ in self.pages(folder + slash):
                pass
        return self._overlaid.get(key)

    def of(self, key: str) -> list[Version]:
        """All versions of one key, newest first."""
        for keys in self._keys(key):
            for versions in keys:
                return versions if versions[0].key == key else []
        return []

    def _keys(self, prefix: str) -> Iterator[list[list[Version]]]:
        """A page's keys with all their versions, newest first; a key on two pages is with the second one."""
        held: list[Version] = []
        at: dict[str, Any] = {}
        while True:
            page = self._client.list_object_versions(
                Bucket=self._bucket, Prefix=self._prefix + prefix, MaxKeys=_PAGE, **at
            )
            found = [
                *((one["Key"], not one["IsLatest"], -one["LastModified"].timestamp(), number, one)
                  for number, one in enumerate((*page.get("Versions", ()), *page.get("DeleteMarkers", ())))),
            ]  # fmt: skip
            held += [self._version(one) for *_, one in sorted(found, key=lambda each: each[:4])]
            keys = [list(versions) for _, versions in groupby(held, key=lambda version: version.key)]
            held = keys.pop() if keys and page.get("IsTruncated") else []
            yield [versions for versions in keys if is_key(versions[0].key)]
            if not page.get("IsTruncated"):
                return
            at = {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextVersionIdMarker"):
                at["VersionIdMarker"] = page["NextVersionIdMarker"]

    def _version(self, one: Any) -> Version:
        return Version(one["Key"].removeprefix(self._prefix), one["VersionId"], one.get("Size"), one["IsLatest"])


def the_object(newest_first: list[Version]) -> Version | None:
    """Which of a key's versions is the object; None where there is none."""
    if is_lasting(newest_first[0].key):
        return next((one for one in reversed(newest_first) if one.size is not None), None)
    newest = newest_first[0]
    return newest if newest.newest and newest.size is not None else None
