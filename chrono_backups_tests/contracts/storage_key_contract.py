"""What every storage must hold of keys and listings: a part of ``StorageContract``, which drivers join."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from chrono_backups.storage.base import ObjectInfo, Storage

Opener = Callable[[], Storage]

GOOD_KEYS = [
    "a",
    "0",
    "-",
    "_",
    "a.b",
    "a..b",
    "a.",
    "packs/0f/0f3c-9_a.pack",
    "a/b/c/d/e/f/g",
    "x" * 200,
    "/".join(["x" * 49] * 4),
]

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "./a",
    "../a",
    "a/..",
    "a/./b",
    "a/../b",
    ".hidden",
    "a/.hidden",
    ".tmp/put-1",
    "A",
    "a/B",
    "a b",
    " a",
    "a\n",
    "a\x00b",
    "a\\b",
    "a:b",
    "a*",
    "a?b",
    "a%2fb",
    "a~",
    "ä",
    "a/日本",
    "ａ",
    "٣",
    "x" * 201,
    "/".join(["x" * 50] * 4),
]

BAD_PREFIXES = ["/", "/a", "..", "../", "a/../", "a//", "./", "A", "ä", "a b", "a\n", "x" * 201]


def keys_of(listing: Iterator[ObjectInfo]) -> list[str]:
    return [info.key for info in listing]


class StorageKeyContract:
    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    def storage(self, opener: Opener) -> Iterator[Storage]:
        storage = opener()
        yield storage
        storage.close()

    # Keys

    @pytest.mark.parametrize("key", GOOD_KEYS)
    def test_good_keys_name_objects(self, storage: Storage, key: str) -> None:
        storage.put(key, b"content")
        assert bytes(storage.get(key)) == b"content"
        assert storage.info(key) == ObjectInfo(key, 7)
        assert list(storage.list()) == [ObjectInfo(key, 7)]
        storage.delete(key)
        assert list(storage.list()) == []

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_keys_are_refused_before_anything_is_touched(self, storage: Storage, key: str) -> None:
        with pytest.raises(ValueError, match="key"):
            storage.put(key, b"content")
        with pytest.raises(ValueError, match="key"):
            storage.get(key)
        with pytest.raises(ValueError, match="key"):
            storage.info(key)
        with pytest.raises(ValueError, match="key"):
            storage.delete(key)
        assert list(storage.list()) == []

    @pytest.mark.parametrize("prefix", BAD_PREFIXES)
    def test_prefixes_no_key_can_have_are_refused(self, storage: Storage, prefix: str) -> None:
        with pytest.raises(ValueError, match="key"):
            list(storage.list(prefix))

    # List

    KEYS = (
        "a",
        "b-a",
        "b.a/x",
        "b/-",
        "b/a",
        "b/a-b",
        "b/a.b",
        "b/aa",
        "b/b/c",
        "b/b/d/e",
        "b0",
        "b_/x",
        "ba/a",
        "c/a",
    )

    @pytest.fixture
    def filled(self, storage: Storage) -> Storage:
        for number, key in enumerate(reversed(self.KEYS)):
            storage.put(key, b"x" * number)
        return storage

    def test_the_keys_are_given_in_order(self) -> None:
        assert list(self.KEYS) == sorted(self.KEYS)

    def test_list_is_complete_and_in_the_order_of_whole_keys(self, filled: Storage) -> None:
        expected = [ObjectInfo(key, len(self.KEYS) - 1 - number) for number, key in enumerate(self.KEYS)]
        assert list(filled.list()) == expected

    @pytest.mark.parametrize(
        "prefix",
        [
            "a",
            "a/",
            "b",
            "b/",
            "b-",
            "b.",
            "b/a",
            "b/a-",
            "b/b",
            "b/b/",
            "b/b/d",
            "b/b/d/",
            "b/b/d/e",
            "b/b/d/e/",
            "b_",
        ],
    )
    def test_list_of_a_prefix(self, filled: Storage, prefix: str) -> None:
        assert keys_of(filled.list(prefix)) == [key for key in self.KEYS if key.startswith(prefix)]

    def test_list_streams_and_may_be_given_up(self, filled: Storage) -> None:
        listing = filled.list()
        assert next(listing).key == "a"
        filled.put("zz", b"meanwhile")
        filled.delete("c/a")
        rest = keys_of(listing)
        assert [key for key in rest if key not in {"zz", "c/a"}] == [
            key for key in self.KEYS if key not in {"a", "c/a"}
        ]
        given_up = filled.list()
        next(given_up)
        del given_up
        assert len(list(filled.list())) == len(self.KEYS)

    def test_deleting_while_listing(self, filled: Storage) -> None:
        for info in filled.list():
            filled.delete(info.key)
        assert list(filled.list()) == []

    def test_list_of_many(self, storage: Storage) -> None:
        keys = [f"many/{number % 10}/{number:04}" for number in range(1200)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: storage.put(key, b"x"), keys))
        found = keys_of(storage.list("many/"))
        assert found == sorted(keys)
        assert all(first < second for first, second in pairwise(found))
        assert keys_of(storage.list("many/7/1")) == [key for key in sorted(keys) if key.startswith("many/7/1")]

    @pytest.mark.parametrize("prefix", ["ba", "c/", "d", "zz/y/", "b/zz", "a/b/c"])
    def test_list_of_a_prefix_that_few_or_none_have(self, filled: Storage, prefix: str) -> None:
        assert keys_of(filled.list(prefix)) == [key for key in self.KEYS if key.startswith(prefix)]

    def test_list_of_nothing(self, storage: Storage) -> None:
        assert list(storage.list()) == []
        assert list(storage.list("a/b")) == []
