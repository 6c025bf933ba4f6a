"""The sources of this room, held to the contract."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chrono_backups.sources.base import Source
from chrono_backups.sources.files import FilesSource
from chrono_backups_tests.contracts.source_contract import Opener, SourceContract


def site(root: Path) -> Path:
    """A tree with one of each kind of thing that content can be."""
    (root / "empty directory").mkdir(parents=True)
    (root / "a" / "deep").mkdir(parents=True)
    (root / "a" / "small").write_bytes(b"small")
    (root / "a-b").write_bytes(b"sorts between a and a/deep, were it not for the order")
    (root / "a" / "deep" / "large").write_bytes(os.urandom(700_000))
    (root / "empty").touch()
    (root / "link").symlink_to("a/small")
    (root / "dangling").symlink_to("nowhere")
    with (root / "sparse").open("wb") as file:
        file.seek(400_000)
        file.write(b"in the middle")
        file.truncate(900_000)
    return root


class TestFiles(SourceContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        root = site(tmp_path / "site")
        return lambda: FilesSource("files", [root])

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Source:
        return FilesSource("files", [tmp_path, tmp_path / "gone"])


class TestConfiguration(SourceContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        root = site(tmp_path / "site")
        (tmp_path / ".env").write_text("POSTGRES_PASSWORD=secret\n")
        return lambda: FilesSource("configuration", [tmp_path / ".env", root / "a"], single_files=True)

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Source:
        return FilesSource("configuration", [tmp_path / "gone"], single_files=True)
