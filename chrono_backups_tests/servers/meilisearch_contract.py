"""What the tests' own Meilisearch server takes for true of a real one, in one place.

No Meilisearch can be installed from the registries, so ``servers/meilisearch.py`` is held to the engine's public HTTP
contract of 1.16 (its routes and their OpenAPI descriptions). Whatever a real server does otherwise is to be mended here
first; the server, and so the tests, follow. Each line says what is relied upon, and by whom.

Relied upon by the source:

1. ``POST /indexes/{uid}/documents/fetch`` pages by ``offset`` and ``limit`` in the order of the internal ids, without
   an upper limit, each page as of one moment and no two of the same; its answer begins with ``{"results":[``.
2. A document keeps its internal id while it is replaced or updated; a new one takes the lowest id that is free. So the
   order changes by deletions and by what then fills the gaps.
3. A document is written compactly, its fields in the order in which the index first saw them, ``_vectors`` last (an
   empty object where there are none): the same document, the same bytes.
4. Settings and chat settings show API keys masked: ``MASKED`` tells by what.
5. ``GET /tasks`` lists from the newest uid to the oldest; a task has ``uid``, ``indexUid`` (null for a swap),
   ``status`` and ``type``.
6. Values of keys are the hexadecimal HMAC-SHA256 of the key's uid under the master key.

Relied upon by the restore:

7. Documents come as NDJSON, and what is longer than ``PAYLOAD_LIMIT`` is refused by 413 ``payload_too_large``.
8. A full task queue refuses by 422 ``no_space_left_on_device``; a full index fails the task.
9. ``POST /swap-indexes`` swaps all pairs in one task or none; both indexes of a pair must exist.
10. ``POST /keys`` keeps a given uid; one that exists is refused by 409 ``api_key_already_exists``; a moment of expiry
    that is over is refused.
11. ``PATCH /indexes/{uid}/settings`` takes what ``GET`` gave, null meaning the default.
"""

from __future__ import annotations

VERSION = "1.16.0"
PAYLOAD_LIMIT = 100_000_000
"""Bytes of a request's body: ``MEILI_HTTP_PAYLOAD_SIZE_LIMIT`` where nothing is set."""
PAGE = 20
"""Results of a page where no limit is asked for."""
UID_MOST = 400
MASKED = "..."
"""What a masked secret ends with."""

STATUS = {
    "api_key_already_exists": 409,
    "api_key_not_found": 404,
    "bad_request": 400,
    "chat_not_found": 404,
    "document_not_found": 404,
    "feature_not_enabled": 400,
    "index_not_found": 404,
    "invalid_api_key": 403,
    "invalid_api_key_expires_at": 400,
    "invalid_content_type": 415,
    "invalid_index_uid": 400,
    "invalid_swap_indexes": 400,
    "malformed_payload": 400,
    "missing_authorization_header": 401,
    "missing_master_key": 401,
    "missing_payload": 400,
    "no_space_left_on_device": 422,
    "not_found": 404,
    "payload_too_large": 413,
    "task_not_found": 404,
}
"""Code of an error → status of its answer."""

_AUTH = {"invalid_api_key", "missing_authorization_header", "missing_master_key"}


def error_type(code: str) -> str:
    """The kind that an error's code belongs to."""
    if code == "no_space_left_on_device":
        return "system"
    return "auth" if code in _AUTH else "invalid_request"


SETTINGS: dict[str, object] = {
    "displayedAttributes": ["*"],
    "searchableAttributes": ["*"],
    "filterableAttributes": [],
    "sortableAttributes": [],
    "rankingRules": ["words", "typo", "proximity", "attribute", "sort", "exactness"],
    "stopWords": [],
    "nonSeparatorTokens": [],
    "separatorTokens": [],
    "dictionary": [],
    "synonyms": {},
    "distinctAttribute": None,
    "proximityPrecision": "byWord",
    "typoTolerance": {"enabled": True, "disableOnWords": [], "disableOnAttributes": []},
    "faceting": {"maxValuesPerFacet": 100, "sortFacetValuesBy": {"*": "alpha"}},
    "pagination": {"maxTotalHits": 1000},
    "embedders": {},
    "searchCutoffMs": None,
    "localizedAttributes": None,
    "facetSearch": True,
    "prefixSearch": "indexingTime",
}
"""An index's settings where none are set."""

FEATURES = {
    "1.12.0": ("vectorStore", "metrics", "logsRoute", "editDocumentsByFunction", "containsFilter"),
    "1.14.0": ("metrics", "logsRoute", "editDocumentsByFunction", "containsFilter", "network",
               "getTaskDocumentsRoute", "compositeEmbedders"),
    "1.16.0": ("metrics", "logsRoute", "editDocumentsByFunction", "containsFilter", "network",
               "getTaskDocumentsRoute", "compositeEmbedders", "chatCompletions", "multimodal"),
    "1.22.0": ("metrics", "logsRoute", "editDocumentsByFunction", "containsFilter", "network",
               "getTaskDocumentsRoute", "compositeEmbedders", "chatCompletions", "multimodal", "vectorStoreSetting"),
}  # fmt: skip
"""Experimental features by the version that has them first; a later one has those of the newest below it."""


def numbers(version: str) -> tuple[int, ...]:
    """A version, to be compared."""
    return tuple(int(part) for part in version.split("."))


def features_of(version: str) -> tuple[str, ...]:
    """The experimental features that a version knows."""
    known = [names for since, names in FEATURES.items() if numbers(since) <= numbers(version)]
    return known[-1] if known else ()


def masked(secret: str) -> str:
    """A secret as the server shows it."""
    for below, kept, crosses in ((10, 0, "XXX"), (20, 2, "XXXX"), (30, 3, "XXXXX")):
        if len(secret) < below:
            return secret[:kept] + crosses + MASKED
    return secret[:5] + "XXXXXX" + MASKED
