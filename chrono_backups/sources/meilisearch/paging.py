"""All documents of an index, page by page, though the index may change meanwhile.

A page is asked for by its offset in the order of the server's internal ids, which a document keeps while it is updated.
A document that is deleted moves all behind it one place up, and the next page would miss one. So every page begins with
the last document of the page before: where it is not there, the place is looked for again. Whatever was in the index
all the time is given once and never missed; what changed meanwhile is as it was at some moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

from chrono_backups.errors import AnswerTooLarge, SourceError
from chrono_backups.sources.meilisearch.client import Meilisearch, of_index
from chrono_backups.sources.meilisearch.pages import Document, documents

_FIRST = 20
_GROWTH = 16
"""A page has at most so many times the documents of the one before, until it is known how large they are."""
_MOST = 20_000
_PAGE_BYTES = 2 * 1024 * 1024
"""A page is to be about so large: few requests, and little memory on either side."""
_HELD_MOST = 32 * 1024 * 1024
"""Bytes of a page beyond which fewer documents are asked for: some are far larger than those before."""
_LEAST = 2
"""Documents of a page: the last one of the page before, and one more."""
_LOOK_BACK = 4
"""Pages before a lost place that are looked through for it."""

Page = list[Document]


class Paging:
    """Goes through an index once. ``moved`` tells afterwards whether documents went away meanwhile."""

    def __init__(self, server: Meilisearch, uid: str, primary_key: str | None) -> None:
        self._server = server
        self._path = of_index(uid, "/documents/fetch")
        self._uid = uid
        self._key = primary_key or "id"
        self._limit = _FIRST
        self.moved = False
        self.lost = False
        """A place could not be found again: documents may be missing."""

    def pages(self) -> Iterator[Page]:
        """Every document, in the server's order. The next page is fetched while one is worked on."""
        offset, before = 0, list[Any]()
        coming = _Coming(self._fetch, 0, self._limit)
        while True:
            raw, asked = coming.result()
            page = list(documents(raw, self._key))
            ended = len(page) < asked
            if before:
                if page and page[0][1] == before[-1]:
                    page = page[1:]
                else:
                    page, offset = self._found_again(offset, before)
                    ended = False
            if not page:
                return
            offset += len(page)
            before = [key for _, key in page]
            self._limit = min(_fitting(len(raw), len(page)), self._limit * _GROWTH)
            if not ended:
                coming = _Coming(self._fetch, offset - 1, self._limit + 1)
            yield page
            if ended:
                return

    def _fetch(self, offset: int, limit: int) -> tuple[bytes, int]:
        """A page, and how many documents were asked for: fewer, where so many are too much at once."""
        while True:
            asked = b'{"offset":%d,"limit":%d,"retrieveVectors":true}' % (offset, limit)
            try:
                most = _HELD_MOST if limit > _LEAST else None
                return self._server.ask("POST", self._path, body=asked, most=most), limit
            except AnswerTooLarge:
                limit = max(_LEAST, limit // _GROWTH)

    def _found_again(self, offset: int, before: list[Any]) -> tuple[Page, int]:
        """What follows the last document of those given before that is still there, and its offset."""
        self.moved = True
        given = set(map(_hashable, before))
        for back in range(1, _LOOK_BACK + 1):
            start = max(0, offset - back * len(before) - self._limit)
            raw, _ = self._fetch(start, (back + 1) * len(before) + 2 * self._limit)
            page = list(documents(raw, self._key))
            for at in range(len(page) - 1, -1, -1):
                if _hashable(page[at][1]) in given:
                    return page[at + 1 :], start + at + 1
            if start == 0:
                break
        self.lost = True
        raw, _ = self._fetch(offset, self._limit)
        return list(documents(raw, self._key)), offset


class _Coming:
    """A page that is fetched meanwhile. Who is cancelled does not wait for it, nor does the end of the process."""

    def __init__(self, fetch: Callable[[int, int], tuple[bytes, int]], offset: int, limit: int) -> None:
        self._found: tuple[bytes, int] | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(fetch, offset, limit), name="meilisearch", daemon=True)
        self._thread.start()

    def _run(self, fetch: Callable[[int, int], tuple[bytes, int]], offset: int, limit: int) -> None:
        try:
            self._found = fetch(offset, limit)
        except BaseException as error:
            self._error = error

    def result(self) -> tuple[bytes, int]:
        """The page; waits for it, and raises what its fetching did."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found


def _hashable(key: Any) -> Any:
    return key if isinstance(key, (str, int)) else str(key)


def _fitting(size: int, count: int) -> int:
    """How many documents make a page, by those of the last one."""
    return max(1, min(_MOST, _PAGE_BYTES * max(count, 1) // max(size, 1)))


def check_primary_key(uid: str, primary_key: str | None, count: int) -> None:
    """Raises ``SourceError`` for documents in an index that has no key to know them by."""
    if primary_key is None and count:
        raise SourceError(f"the index {uid} has documents and no primary key", source="meilisearch")
