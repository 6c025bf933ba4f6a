"""Thousands of transactions are not to wait for the disk of a busy machine."""

from __future__ import annotations

import pytest

from chrono_backups.notifications import state


@pytest.fixture(autouse=True)
def unhurried_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test."""
    assert state.SYNCHRONOUS == "FULL"
    monkeypatch.setattr(state, "SYNCHRONOUS", "OFF")
