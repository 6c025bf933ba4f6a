"""Whatever ends a whole restore early, it is known of each source whether it is old or new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from chrono_backups.errors import RestoreError, TargetNotEmpty
from chrono_backups.events import Finding, Listener, silent
from chrono_backups.identifiers import SOURCE_NAMES, SourceName
from chrono_backups.recovery.whole.parts import PartReport
from chrono_backups.recovery.whole.restore import ORDER, WholeRestore


@dataclass
class Fake:
    """A part that notes what is asked of it."""

    source: SourceName
    log: list[str]
    fails: BaseException | None = None
    refused: bool = False
    backup_id: str = "full_1"
    when_stopped: str = "half done"
    findings: Sequence[Finding] = field(default_factory=list)

    @property
    def sources(self) -> Sequence[SourceName]:
        return (self.source,)

    @property
    def overwrites(self) -> bool:
        return self.source != "postgres"

    def facts(self) -> Sequence[tuple[str, str]]:
        return []

    def to_json(self) -> dict[str, Any]:
        return {}

    def check(self, listener: Listener) -> None:
        self.log.append(f"check {self.source}")
        if self.refused:
            raise TargetNotEmpty("in the way")

    def execute(self, listener: Listener) -> PartReport:
        self.log.append(self.source)
        if self.fails is not None:
            raise self.fails
        return PartReport(self.source, 1, damaged=int(self.source == "files"))


def test_the_order_loses_least_by_stopping() -> None:
    log: list[str] = []
    restore = WholeRestore([Fake(source, log) for source in SOURCE_NAMES])
    restore.execute(silent)
    assert tuple(log) == ORDER == ("postgres", "configuration", "files", "meilisearch", "redis")
    assert restore.overwritten == ["configuration", "files", "meilisearch", "redis"]
    assert dict(restore.told()) == dict.fromkeys(ORDER, "as in full_1")
    assert restore.damaged == 1
    assert [one["stage"] for one in restore.to_json()] == ["restored"] * 5


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RestoreError("no room")], ids=["cancelled", "failed"])
@pytest.mark.parametrize("stopped", ORDER)
def test_stopped_at_each_part_it_says_what_is_old_and_what_is_new(stopped: SourceName, error: BaseException) -> None:
    log: list[str] = []
    told: list[dict[str, str]] = []
    parts = [Fake(source, log, fails=error if source == stopped else None) for source in SOURCE_NAMES]
    restore = WholeRestore(parts)
    with pytest.raises(type(error)):
        restore.execute(silent, changed=lambda: told.append(dict(restore.told())))
    at = ORDER.index(stopped)
    old = {source: "not restored" if source == "postgres" else "as it was" for source in ORDER[at + 1 :]}
    expected = {**dict.fromkeys(ORDER[:at], "as in full_1"), stopped: "half done", **old}
    assert dict(restore.told()) == expected
    assert told[-1] == expected, "and it was known before it happened"
    assert tuple(log) == ORDER[: at + 1], "nothing is begun after that"


@pytest.mark.parametrize("refused", ORDER)
def test_where_one_is_refused_none_is_begun(refused: SourceName) -> None:
    log: list[str] = []
    restore = WholeRestore([Fake(source, log, refused=source == refused) for source in SOURCE_NAMES])
    with pytest.raises(TargetNotEmpty):
        restore.check(silent)
    assert all(word.startswith("check ") for word in log)
    assert {words for _, words in restore.told()} == {"as it was", "not restored"}
