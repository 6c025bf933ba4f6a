"""The HTTP API: addresses, keys, errors, patience; and pages taken apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chrono_backups.clock import FrozenClock, SystemClock
from chrono_backups.errors import SourceError, SourceRefused, SourceUnavailable
from chrono_backups.sources.meilisearch import paging
from chrono_backups.sources.meilisearch.client import Meilisearch, Server, base_url
from chrono_backups.sources.meilisearch.pages import documents
from chrono_backups.sources.meilisearch.paging import Paging
from chrono_backups_tests.servers.fault_proxy import FaultProxy
from chrono_backups_tests.servers.faults import Answer, LoseAnswer
from chrono_backups_tests.servers.meilisearch import MeilisearchServer
from chrono_backups_tests.servers.meilisearch_generated import document
from chrono_backups_tests.sources.meilisearch_settings import MASTER_KEY


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("http://search:7700/", "http://search:7700"),
        ("https://search.example/meili", "https://search.example/meili"),
        ("search", "http://search:7700"),
        ("search:7701", "http://search:7701"),
        ("[::1]", "http://[::1]:7700"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses(host: str, url: str) -> None:
    assert base_url(host) == url


def asked(url: str, key: str | None = MASTER_KEY, **others: Any) -> Meilisearch:
    return Meilisearch(Server(url, key), others.pop("clock", SystemClock()), **others)


def test_the_key_is_neither_shown_nor_overridden_nor_sent_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert MASTER_KEY not in repr(Server("http://x", MASTER_KEY))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with MeilisearchServer(master_key=MASTER_KEY) as server, FaultProxy(server.port) as proxy:
        with asked(server.url) as client:
            assert client.get("/version")["pkgVersion"] == "1.16.0"
        elsewhere = (("Location", f"{server.url}/version"),)
        proxy.script(Answer(307, headers=elsewhere))
        with asked(f"http://127.0.0.1:{proxy.port}") as client, pytest.raises(SourceRefused, match="307"):
            client.get("/version")
        assert len(server.requests) == 1


def test_a_busy_server_is_asked_again_after_as_long_as_it_says() -> None:
    clock = FrozenClock()
    with MeilisearchServer() as server, FaultProxy(server.port) as proxy:
        proxy.script(Answer(503, retry_after=7), Answer(502, body=b"<html>"))
        with asked(f"http://127.0.0.1:{proxy.port}", clock=clock) as client:
            assert client.get("/health") == {"status": "available"}
        assert 7 <= clock.monotonic() <= 10


def test_what_is_asked_once_is_not_asked_again_after_a_cut() -> None:
    with MeilisearchServer() as server, FaultProxy(server.port) as proxy:
        proxy.script(LoseAnswer())
        with asked(f"http://127.0.0.1:{proxy.port}") as client, pytest.raises(SourceUnavailable):
            client.send("POST", "/swap-indexes", [], once=True)
        assert len(server.requests) == 1


def test_something_else_that_answers() -> None:
    with MeilisearchServer() as server, FaultProxy(server.port) as proxy:
        proxy.script(Answer(200, body=b"<html>hello</html>"), Answer(404, body=b"<html>nothing here</html>"))
        with asked(f"http://127.0.0.1:{proxy.port}") as client:
            with pytest.raises(SourceError, match="no Meilisearch"):
                client.get("/version")
            with pytest.raises(SourceRefused, match="nothing here") as refused:
                client.get("/version")
            assert refused.value.status == 404


def page(*rows: bytes, tail: bytes = b'],"offset":0,"limit":20,"total":9}') -> bytes:
    return b'{"results":[' + b",".join(rows) + tail


def test_a_page_gives_each_documents_own_bytes() -> None:
    rows = [
        '{"id":1,"text":"brackets ]},{ and \\"quotes\\", ünï 🎬"}'.encode(),
        b'{"id":"two","n":1.10e3,"deep":[{"a":[]},{"b":"\\u0041"}]}',
        b'{"id":3,"_vectors":{"d":{"embeddings":[[0.1]],"regenerate":false}}}',
    ]
    assert list(documents(page(*rows), "id")) == [(rows[0], 1), (rows[1], "two"), (rows[2], 3)]
    assert list(documents(page(b'{"id":1,"_vectors":{}}'), "id")) == [(b'{"id":1}', 1)]
    assert list(documents(page(), "id")) == []


def test_a_page_that_is_written_another_way_is_read_too() -> None:
    text = json.dumps({"total": 1, "results": [{"id": 1, "a": "ü", "_vectors": {}}]}, indent=1).encode()
    assert list(documents(text, "id")) == [('{"id":1,"a":"ü"}'.encode(), 1)]


@pytest.mark.parametrize("text", [page(b'{"id":1}', tail=b""), page(b'{"id":1'), b"{}", page(b"{}", b"{} {}"), b"[1"])
def test_a_page_that_was_cut_is_an_error(text: bytes) -> None:
    with pytest.raises(SourceError, match="no page of documents"):
        list(documents(text, "id"))


def test_pages_become_small_where_documents_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_HELD_MOST", 50_000)
    with MeilisearchServer() as server, asked(server.url, None) as client:
        sizes = [10] * 400 + [40_000] * 30 + [10] * 400 + [60_000] * 2 + [10]
        server.fill("movies", [{"id": number, "x": "y" * size} for number, size in enumerate(sizes)])
        pages = list(Paging(client, "movies", "id").pages())
        assert [key for page in pages for _, key in page] == list(range(len(sizes)))
        assert max(sum(len(raw) for raw, _ in page) for page in pages) < 100_000


def test_an_index_that_is_emptied_meanwhile_is_known_to_be_lost() -> None:
    with MeilisearchServer() as server, asked(server.url, None) as client:
        server.fill("movies", [json.loads(document(number)) for number in range(500)])
        reading = Paging(client, "movies", "id")
        found = 0
        for rows in reading.pages():
            found += len(rows)
            server.engine.delete_documents("movies", list(range(500)))
        assert found < 500 and reading.moved and reading.lost
