"""Whether a server holds what a backup holds: each question asked of the server, and its answer compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from chrono_backups.errors import SourceRefused
from chrono_backups.events import Finding
from chrono_backups.recovery.meilisearch.content import BackedUp, BackedUpIndex
from chrono_backups.recovery.meilisearch.indexes import BATCH
from chrono_backups.recovery.postgres.proof import Proof
from chrono_backups.sources.meilisearch.client import Meilisearch, of_index
from chrono_backups.sources.meilisearch.paging import Paging
from chrono_backups.sources.meilisearch.samples import digest, search, vectors_digest
from chrono_backups.sources.meilisearch.server_state import index_settings

_APART_MOST = 50_000
"""Documents that are remembered by their keys until the other side has them too, to name those that differ."""
Ask = Callable[[Proof], None]
_SUM = 2**256


def different(name: str, message: str) -> Finding:
    """What is not as it was captured."""
    return Finding("drill-different", "error", f"meilisearch: {name}", message)


def check_documents(server: Meilisearch, content: BackedUp) -> Ask:
    """Whether every document is there, the same in each field and vector, and no other."""

    def ask(proof: Proof) -> None:
        compared = 0
        for index in content.indexes.values():
            found = _compare(server, content, index)
            compared += found.same
            proof.findings += found.findings(index)
        proof.done = f"{len(content.indexes)} indexes, {compared:,} documents compared"

    return ask


class _Comparison:
    """Two streams of documents. What is not the same in the same place is held against each other as sums of digests,
    for a server may give its documents in another order."""

    def __init__(self, primary_key: str) -> None:
        self._key = primary_key
        self.same = 0
        self.here = self.there = 0
        self._sums = [0, 0]
        self._apart: list[dict[Any, str]] = [{}, {}]

    def add(self, side: int, document: Mapping[str, Any]) -> None:
        told = digest(document) + (vectors_digest(document) or "")
        self._sums[side] = (self._sums[side] + int.from_bytes(hashlib.sha256(told.encode()).digest())) % _SUM
        key, other = document.get(self._key), self._apart[1 - side]
        if other.get(key) == told:
            del other[key]
        elif len(self._apart[side]) < _APART_MOST:
            self._apart[side][key] = told

    def findings(self, index: BackedUpIndex) -> list[Finding]:
        found = []
        if self.here != self.there and not index.changed:
            found.append(different(index.uid, f"it has {self.here:,} documents, and the backup {self.there:,}"))
        if self._sums[0] != self._sums[1] and (not index.changed or self.here == self.there):
            here, there = self._apart
            keys = sorted(str(key) for key in {*here, *there} if here.get(key) != there.get(key))[:5]
            found.append(different(index.uid, f"documents differ, among them {', '.join(keys)}"))
        return found


def _compare(server: Meilisearch, content: BackedUp, index: BackedUpIndex) -> _Comparison:
    compared = _Comparison(index.primary_key or "id")
    kept = _lines(content, index.uid)
    for page in Paging(server, index.uid, index.primary_key).pages():
        for raw, _ in page:
            compared.here += 1
            line = next(kept, None)
            if line is not None:
                compared.there += 1
                if line == raw or json.loads(line) == json.loads(raw):
                    compared.same += 1
                    continue
                compared.add(1, json.loads(line))
            compared.add(0, json.loads(raw))
    for line in kept:
        compared.there += 1
        compared.add(1, json.loads(line))
    return compared


def _lines(content: BackedUp, uid: str) -> Iterator[bytes]:
    for batch in content.batches(uid, BATCH // 4):
        yield from batch.splitlines()


def check_settings(server: Meilisearch, content: BackedUp) -> Ask:
    """Whether every index has its settings; embedders aside, which a drill does not let call anybody."""

    def ask(proof: Proof) -> None:
        count = 0
        for uid, index in content.indexes.items():
            here, there = index_settings(server, uid), content.settings(uid)
            for name in sorted(there):
                if name == "embedders":
                    if set(here.get(name) or {}) != set(there[name] or {}):
                        proof.findings.append(different(uid, "it has other embedders"))
                elif _settled(here.get(name)) != _settled(there[name]):
                    proof.findings.append(different(uid, f"its {name} are not as they were"))
                count += 1
            key = server.get(of_index(uid))["primaryKey"]
            if key != index.primary_key:
                proof.findings.append(different(uid, f"its primary key is {key}, and was {index.primary_key}"))
        proof.done = f"{len(content.indexes)} indexes, {count} settings compared"

    return ask


def _settled(value: Any) -> str:
    """As text to compare; the order counts, but for what the server keeps as sets and gives in an order of its own."""
    return json.dumps(value, sort_keys=True)


def check_samples(server: Meilisearch, content: BackedUp) -> Ask:
    """Whether documents are what the captured server said of them, apart from what was stored."""

    def ask(proof: Proof) -> None:
        count = 0
        for uid, recorded in content.samples().items():
            for one in recorded.get("samples", ()):
                count += 1
                problem = _sample_problem(server, uid, one)
                if problem:
                    proof.findings.append(different(f"{uid} {one['key']}", problem))
        proof.done = f"{count:,} documents held against what was recorded at the capture"

    return ask


def _sample_problem(server: Meilisearch, uid: str, recorded: Mapping[str, Any]) -> str:
    path = of_index(uid, f"/documents/{quote(str(recorded['key']), safe='')}")
    try:
        document = server.get(path, retrieveVectors="true")
    except SourceRefused as error:
        return "it is not there" if error.status == 404 else error.message
    if digest(document) != recorded["digest"]:
        return "it is not as it was"
    return "its vectors are not as they were" if vectors_digest(document) != recorded["vectors"] else ""


def check_searches(server: Meilisearch, content: BackedUp, *, same_version: bool) -> Ask:
    """Whether a search in each index finds as much as it did."""

    def ask(proof: Proof) -> None:
        count = 0
        for uid, recorded in content.samples().items():
            asked = recorded.get("search")
            if asked is None:
                continue
            count += 1
            hits = search(server, uid, asked["q"])
            if hits != asked["hits"]:
                message = f"a search for {asked['q']} finds {hits:,}, and found {asked['hits']:,}"
                severe = same_version or not hits
                code = "drill-different" if severe else "drill-other-version"
                proof.findings.append(Finding(code, "error" if severe else "warning", f"meilisearch: {uid}", message))
        proof.done = f"{count} searches compared"

    return ask


def check_keys(server: Meilisearch, content: BackedUp) -> Ask:
    """Whether the keys are there, with their uids, actions and indexes."""

    def ask(proof: Proof) -> None:
        kept = content.json("keys.json") or []
        here = {key["uid"]: key for key in server.pages("/keys")}
        for key in kept:
            found = here.get(key["uid"])
            if found is None:
                message = "the key is not there" + (": it has expired" if key.get("expiresAt") else "")
                severity = "warning" if key.get("expiresAt") else "error"
                proof.findings.append(
                    Finding("drill-different", severity, f"meilisearch: key {key['uid']}", message)  # type: ignore[arg-type]
                )
            elif any(found.get(name) != key.get(name) for name in ("name", "actions", "indexes", "expiresAt")):
                proof.findings.append(different(f"key {key['uid']}", "the key has other rights"))
        proof.done = f"{len(kept)} keys compared"

    return ask


def check_content(content: BackedUp) -> Ask:
    """Without a server: whether every line is a document, as many as were captured, the sampled ones among them."""

    def ask(proof: Proof) -> None:
        count = 0
        samples = content.samples()
        for uid, index in content.indexes.items():
            wanted = {json.dumps(one["key"]): one for one in samples.get(uid, {}).get("samples", ())}
            found = 0
            for document in map(json.loads, _lines(content, uid)):
                found += 1
                recorded = wanted.pop(json.dumps(document.get(index.primary_key or "id")), None)
                if recorded is not None and digest(document) != recorded["digest"]:
                    proof.findings.append(different(f"{uid} {recorded['key']}", "it is not as it was"))
            count += found
            if found != index.documents:
                proof.findings.append(different(uid, f"{found:,} documents are stored, and {index.documents:,} came"))
            if wanted:
                proof.findings.append(different(uid, f"{len(wanted)} recorded documents are not stored"))
            if not isinstance(content.json(f"indexes/{uid}/settings.json"), dict):
                proof.findings.append(different(uid, "its settings are not stored"))
        proof.done = f"{len(content.indexes)} indexes, {count:,} documents read"

    return ask
