"""What holds for all tests.

- The settings of whoever runs them are not the tests': ``BACKUP_…`` and the application's own variables are gone.
- A skip whose reason begins with "needs " names a server or a program that the machine lacks. In CI (``CI=true``)
  that is a failure, and so is a package that can't be imported; elsewhere the summary lists it.
- Signals that whoever runs them has ignored, as ``nohup`` and a shell's background do, are not ignored by the programs
  that the tests start and stop by them.
- Hypothesis has no deadlines: the machine may be busy. It tries the same examples each time, so that a change is told
  from chance; with ``EXPLORE=1``, as ``make soak`` has it, others than the last time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
_SETTINGS = ("BACKUP_", "POSTGRES_", "REDIS_", "MEILISEARCH_", "DAGSTER_")
_LACKING = ("needs ", "could not import ")

for _name in [name for name in os.environ if name.startswith(_SETTINGS)]:
    del os.environ[_name]

for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)  # here still without effect; a program that is started has the default

hypothesis.settings.register_profile(
    "house",
    deadline=None,
    print_blob=True,
    derandomize=not os.environ.get("EXPLORE"),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("house")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if reason.startswith(_LACKING):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} can't run here, and in CI everything has to: {reason}"
    return report


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent
