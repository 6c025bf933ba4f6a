"""Make the pictures of the UI in docs/images: a week of backups, a database, a real Dagster, a headless Chromium.

    python scripts/screenshots.py [--only NAME]

Needs Chromium with its driver (Debian: chromium chromium-driver) and `pip install selenium`. Everything but the
pictures is in a temporary directory.
"""

import argparse
import base64
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

from chrono_backups import settings  # noqa: E402
from chrono_backups.assembly import Application  # noqa: E402
from chrono_backups.clock import SystemClock  # noqa: E402
from demo.database import Database  # noqa: E402
from demo.receiver import Receiver  # noqa: E402
from demo.served import Served, free_port  # noqa: E402
from demo.site import build_site, change_site  # noqa: E402

IMAGES = CHECKOUT / "docs" / "images"
LARGEST = 150_000
"""Bytes of a picture."""
DAYS = 9
WIDTH, HEIGHT = 1280, 800


class PastClock(SystemClock):
    """The machine's clock, so many days ago."""

    def __init__(self, days: int) -> None:
        self._shift = timedelta(days=days)

    def now(self) -> datetime:
        return super().now() - self._shift


class Week:
    """A site, its settings, and a backup of each past day."""

    def __init__(self, place: Path) -> None:
        self.site = build_site(place / "site")
        self.today = datetime.now(UTC).date()
        paths = {"FILES": self.site.files, "CONFIGURATION": self.site.configuration}
        for name, value in {
            **{f"BACKUP_{name}_PATHS": ":".join(map(str, those)) for name, those in paths.items()},
            "BACKUP_LOCAL_PATH": f"{place}/repository",
            "BACKUP_LOCAL_MIRROR_PATH": f"{place}/mirror",
            "BACKUP_ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "BACKUP_FIRST_DAY": (self.today - timedelta(days=DAYS + 2)).isoformat(),
        }.items():
            os.environ[name] = value

    def take(self) -> None:
        """A backup a day; the site is worked on in between."""
        self._application(DAYS).create_repository().close()
        for age in range(DAYS, 0, -1):
            self._application(age).take_backup("full", trigger="schedule")
            change_site(self.site.root, day=DAYS - age + 1)

    @staticmethod
    def _application(days_ago: int) -> Application:
        return Application(settings.load(), clock=PastClock(days_ago))


def fill(served: Served, week: Week) -> dict[str, str]:
    """Runs that the pictures show; job → run."""
    served.run("rebuild_history")
    today = week.today.isoformat()
    runs = {job: served.run(job, today) for job in ("full_backup_job", "incremental_backup_job", "verification_job")}
    runs["retention"] = served.run("retention", None, {"dry_run": True})
    days = [(week.today - timedelta(days=age)).isoformat() for age in range(DAYS - 2, 0, -1)]
    for day in days[2::2]:
        served.run("drill_job", day, storage="local")
    to_the_end = {"ops": {"drill": {"config": {"target_time": "latest"}}}}
    runs["drill_job"] = served.run("drill_job", today, to_the_end, storage="local")
    served.run("observe_sources")
    served.ask(
        """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
            __typename } }""",
        params={
            "partitionNames": [f"{day}|local_mirror" for day in days],
            "assetSelection": [{"path": ["backup_replica"]}],
        },
    )
    served.until(lambda: replicated(served) > len(days), "the replicas", 300)
    return runs


def replicated(served: Served) -> int:
    """How many days the mirror has."""
    found = served.ask(
        """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) {
            ... on Asset { assetMaterializations { runId } } } }""",
        key={"path": ["backup_replica"]},
    )
    return len(found["assetOrError"].get("assetMaterializations", []))


@dataclass(frozen=True)
class Picture:
    """One page: its name, its address, what must be seen on it, and what is clicked before."""

    name: str
    address: str
    seen: tuple[str, ...]
    clicks: tuple[str, ...] = ()
    height: int = HEIGHT
    width: int = WIDTH


def pictures(runs: dict[str, str]) -> list[Picture]:
    groups = quote(",".join(f"global@global:{name}" for name in ("sources", "backups", "replicas", "proofs")))
    return [
        Picture(
            "lineage", f"/asset-groups?expanded={groups}", ("full_backup", "backup_replica", "wal_archive", "drill"),
            ("Hide navigation",), height=2300, width=1400,
        ),
        Picture("backup", "/assets/full_backup?view=overview", ("Metadata", "backup_id")),
        Picture("plots", "/assets/full_backup?view=overview", ("bytes_stored",), ("Plots",), height=1100),
        Picture("checks", "/assets/full_backup?view=checks", ("bytes_verified", "structure_verified")),
        Picture("drill", "/assets/drill?view=overview", ("recovery_seconds", "pg_checksums"), height=1300),
        Picture("drills", "/assets/drill?view=overview", ("recovery_seconds",), ("Plots",), height=1900),
        Picture("wal", "/assets/wal_archive?view=overview", ("rpo_seconds",), height=1300),
        Picture("replicas", "/assets/backup_replica?view=partitions", ("local_mirror",)),
        Picture("run", f"/runs/{runs['full_backup_job']}", ("commit",), height=1000),
        Picture("retention", f"/runs/{runs['retention']}", ("plan_forget", "prune")),
        Picture("restore", "/locations/chrono_backups/jobs/restore_backup/playground", ("safety_backup", "No errors")),
        Picture("automation", "/automation", ("full_backup_schedule", "replication")),
    ]  # fmt: skip


class Browser:
    """A headless Chromium, driven as a reader would."""

    def __init__(self, url: str) -> None:
        self._url = url
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars",
                     f"--window-size={WIDTH},{HEIGHT}"):  # fmt: skip
            options.add_argument(word)
        self._driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))

    def close(self) -> None:
        self._driver.quit()

    def take(self, picture: Picture) -> None:
        """Open the page, wait until everything is on it, and keep what it looks like."""
        self._driver.set_window_size(picture.width, picture.height)
        self._driver.get(self._url + picture.address)
        for words in picture.clicks:
            self._wait(lambda words=words: self._find(words), f"{picture.name}: {words!r} to click").click()  # type: ignore[misc]
        for words in picture.seen:
            self._wait(lambda words=words: words in self._text(), f"{picture.name}: {words!r}")  # type: ignore[misc]
        self._wait(lambda: "Loading" not in self._text(), f"{picture.name} without anything that still loads")
        time.sleep(2.5)  # spinners and drawn lines come to rest
        image = self._image()
        (IMAGES / f"{picture.name}.png").write_bytes(image)
        print(f"{picture.name}: {len(image):,} bytes")  # noqa: T201

    def _image(self) -> bytes:
        """The page as a PNG, scaled down until it is small enough."""
        width, height = (self._driver.execute_script(f"return window.inner{side}") for side in ("Width", "Height"))
        for scale in (1, 0.85, 0.7, 0.6, 0.5, 0.45, 0.4):
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
            found = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
            image = base64.b64decode(found["data"])
            if len(image) <= LARGEST:
                return image
        raise SystemExit(f"no picture of {self._driver.current_url} is small enough")

    def _text(self) -> str:
        return self._driver.find_element(By.TAG_NAME, "body").text

    def _find(self, words: str) -> WebElement | None:
        found = self._driver.find_elements(By.XPATH, f"//*[normalize-space(text())={words!r}]")
        return next((element for element in found if element.is_displayed()), None)

    @staticmethod
    def _wait(answer: Callable[[], WebElement | bool | None], what: str) -> WebElement:
        deadline = time.monotonic() + 60
        while not (found := answer()):
            if time.monotonic() > deadline:
                raise SystemExit(f"not seen: {what}")
            time.sleep(0.3)
        return found  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="the name of one picture")
    arguments = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chrono-screenshots-") as folder:
        place = Path(folder)
        place.chmod(0o711)  # a database's server is not root, and has its socket below
        week = Week(place)
        week.take()  # before there was a database: its past can't be made up
        with ExitStack() as until_the_end:
            database = until_the_end.enter_context(Database())
            database.work()
            environment = {**os.environ, **database.settings(), "PYTHONWARNINGS": "ignore"}
            until_the_end.enter_context(Receiver(place, environment))
            served = until_the_end.enter_context(Served(place / "dagster_home", place, environment, free_port(35_000)))
            runs = fill(served, week)
            browser = Browser(served.url)
            try:
                for picture in pictures(runs):
                    if arguments.only in {None, picture.name}:
                        browser.take(picture)
            finally:
                browser.close()


if __name__ == "__main__":
    main()
