"""Makes a small scraper application's data to protect, and changes it as a day of work does.

| below the root | what | protected as |
|---|---|---|
| `data/pages`, `data/items` | scraped HTML and JSON, by domain and day | files |
| `data/uploads` | documents and media, some with awkward names, one with an xattr | files |
| `data/latest`, `data/gone` | symbolic links, the second to nothing | files |
| `data/exports` | one file under two names (a hard link), and a sparse one | files |
| `data/incoming` | an empty directory | files |
| `logs` | a log and its rotated elders | files |
| `bin/scrape` | an executable | files |
| `.env`, `docker-compose.yml`, `config/…` | settings, with secrets that are none | configuration |

About 30 MB in 2,000 files. The same seed and days give the same names, bytes, modes and times, to the nanosecond.
"""

import json
import os
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

_DOMAINS = ("books.example.com", "jobs.example.org", "news.example.net", "shop.example.com")
_DAYS, _PAGES, _ITEMS, _UPLOADS = 6, 52, 26, 90
_DAY_NS = 86_400_000_000_000
_FIRST_NS = 1_767_225_600 * 1_000_000_000  # 2026-01-01, the day of the first pages
_SPARSE_BYTES, _SPARSE_PAGE = 16 << 20, 4096
_KINDS = {"jpg": b"\xff\xd8\xff\xe0", "png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-1.7\n", "mp4": b"\0\0\0\x18ftypmp42"}


@dataclass(frozen=True)
class Site:
    """Where the site is, and what an operator names in `BACKUP_FILES_PATHS` and `BACKUP_CONFIGURATION_PATHS`."""

    root: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return self.root / "data", self.root / "logs", self.root / "bin"

    @property
    def configuration(self) -> tuple[Path, ...]:
        return self.root / ".env", self.root / "docker-compose.yml", self.root / "config"


def build_site(root: Path, seed: int = 1) -> Site:
    """Make the site in `root`, which must not exist yet.

    Raises:
        FileExistsError: there is something at `root`.
    """
    root.mkdir(parents=True)
    root.chmod(0o755)
    day = _Day(root, seed, _DAYS - 1)
    for number in range(_DAYS):
        earlier = _Day(root, seed, number)
        earlier.scrape(_PAGES, _ITEMS)
        earlier.date_directories()
    for number in range(_UPLOADS):
        day.upload(f"{number:04d}", day.random.randrange(20_000, 260_000))
    day.configure()
    day.export()
    day.log(2, 900_000)
    day.log(1, 900_000)
    day.log(0, 500_000)
    day.write("bin/scrape", b'#!/bin/sh\nexec scraper --config "$(dirname "$0")/../config/scraper.toml" "$@"\n', 0o755)
    day.make(root / "data/incoming")
    day.link("data/gone", "pages/closed.example.com")
    day.date_directories()
    return Site(root)


def change_site(root: Path, day: int, seed: int = 1) -> None:
    """Do the work of day 1, 2, … after `build_site`: new pages and edits, a longer or rotated log, files gone and
    renamed, a new upload, a changed page of the sparse file, and a setting or two.
    """
    work = _Day(root, seed, _DAYS - 1 + day)
    pages = sorted((root / "data/pages").rglob("*.html"))
    picked = work.random.sample(pages, 30)
    for path in picked[:20]:
        work.edit(path)
    for path in picked[20:25]:
        work.remove(path)
    for path in picked[25:]:
        work.rename(path, path.with_name(f"{path.stem}.moved-{day}.html"))
    work.scrape(_PAGES // 4, _ITEMS // 4)
    work.upload(f"day-{day}", 300_000)
    if day % 2:
        work.log(0, 200_000, append=True)
    else:
        work.remove(root / "logs/scraper.log.2")
        work.rename(root / "logs/scraper.log.1", root / "logs/scraper.log.2")
        work.rename(root / "logs/scraper.log", root / "logs/scraper.log.1")
        work.log(0, 200_000)
    work.export_more()
    work.configure()
    work.date_directories()


class _Day:
    """One day's work in a site; everything it touches gets a time of that day."""

    def __init__(self, root: Path, seed: int, number: int) -> None:
        self.random = random.Random(f"site:{seed}:{number}")
        self._root = root
        self._number = number
        self._name = f"2026-01-{number + 1:02d}" if number < 31 else f"2026-day-{number + 1}"
        self._changed: set[Path] = set()
        self._sentences = _sentences(seed)

    def scrape(self, pages: int, items: int) -> None:
        """The day's pages and products of every domain, and the link to the newest."""
        for domain in _DOMAINS:
            for number in range(pages):
                self.write(f"data/pages/{domain}/{self._name}/page-{number:04d}.html", self._html(domain))
            for number in range(items):
                self.write(f"data/items/{domain}/{self._name}/batch-{number:04d}.json", self._json(domain))
        self.link("data/latest", f"pages/{_DOMAINS[0]}/{self._name}")

    def upload(self, label: str, size: int) -> None:
        """A document or an image that does not shrink; the first three have awkward names or an xattr."""
        kind = list(_KINDS)[zlib.crc32(label.encode()) % len(_KINDS)]
        awkward = {"0000": "Übersicht – 概要 2026.pdf", "0001": "annual report 2025 (final).pdf"}
        name = f"data/uploads/{awkward.get(label, f'upload-{label}.{kind}')}"
        self.write(name, _KINDS[kind] + self.random.randbytes(size))
        if label == "0002":
            try:
                os.setxattr(self._root / name, "user.origin", b"https://shop.example.com/catalogue")
            except OSError:  # this file system has none
                return
            self._date(self._root / name)

    def export(self) -> None:
        """An export under two names, and an index that is mostly holes."""
        self.write("data/exports/export-2026.json", self._json(_DOMAINS[0]) * 20)
        twin = self._root / "data/exports/export-current.json"
        twin.hardlink_to(self._root / "data/exports/export-2026.json")
        index = self._root / "data/exports/pages.index"
        index.touch()
        os.truncate(index, _SPARSE_BYTES)
        for page in (0, 700, 2900):
            self._write_page(index, page)
        index.chmod(0o600)

    def export_more(self) -> None:
        """One more page of the index."""
        self._write_page(self._root / "data/exports/pages.index", self.random.randrange(_SPARSE_BYTES // _SPARSE_PAGE))

    def _write_page(self, index: Path, page: int) -> None:
        with index.open("r+b") as file:
            file.seek(page * _SPARSE_PAGE)
            file.write(self.random.randbytes(_SPARSE_PAGE))
        self._date(index)

    def log(self, age: int, size: int, append: bool = False) -> None:
        """The log of `age` rotations ago, or more lines at its end."""
        name = "logs/scraper.log" + (f".{age}" if age else "")
        lines: list[str] = []
        length = 0
        while length < size:
            second = self.random.randrange(86400)
            line = (
                f"{self._name}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z INFO fetch "
                f"https://{self.random.choice(_DOMAINS)}/{self.random.getrandbits(28)} "
                f"status={self.random.choice((200, 200, 200, 304, 404))} ms={self.random.randrange(2000)}\n"
            )
            lines.append(line)
            length += len(line)
        before = (self._root / name).read_bytes() if append else b""
        self.write(name, before + "".join(lines).encode(), 0o640)

    def configure(self) -> None:
        """The application's settings; the version and the token change from day to day."""
        token = f"not-a-secret-{self.random.getrandbits(64):016x}"
        version = f"4.{self._number}.0"
        self.write(".env", _ENV.format(token=token).encode(), 0o600)
        self.write("docker-compose.yml", _COMPOSE.format(version=version).encode())
        self.write("config/nginx.conf", _NGINX.encode())
        self.write("config/scraper.toml", f'version = "{version}"\nworkers = 8\ndelay_seconds = 0.5\n'.encode())
        self.write("config/redis.conf", b"appendonly yes\nmaxmemory 256mb\nmaxmemory-policy noeviction\n")
        self.link("config/active.toml", "scraper.toml")

    def write(self, name: str, content: bytes, mode: int = 0o644) -> None:
        path = self._root / name
        if path.is_file() and path.read_bytes() == content:
            return
        self._enter(path)
        path.write_bytes(content)
        path.chmod(mode)
        self._date(path)

    def edit(self, path: Path) -> None:
        """A sentence or two in the middle."""
        content = path.read_bytes()
        middle = len(content) // 2
        fresh = f"<p>{self._name}: {self._prose(2)}</p>\n".encode()
        path.write_bytes(content[:middle] + fresh + content[middle:])
        self._date(path)

    def remove(self, path: Path) -> None:
        path.unlink()
        self._changed.add(path.parent)

    def rename(self, path: Path, to: Path) -> None:
        path.rename(to)
        self._changed.update((path.parent, to.parent))

    def link(self, name: str, target: str) -> None:
        path = self._root / name
        if path.is_symlink() and os.readlink(path) == target:
            return
        path.unlink(missing_ok=True)
        self._enter(path)
        path.symlink_to(target)
        self._date(path)

    def make(self, directory: Path) -> None:
        """The directory, and those above it that are not there yet."""
        if not directory.is_dir():
            self._enter(directory)
            directory.mkdir()
            directory.chmod(0o755)
            self._changed.add(directory)

    def date_directories(self) -> None:
        """Last, for whatever is written into a directory changes its time: those whose names have changed."""
        for directory in self._changed:
            self._date(directory)

    def _enter(self, path: Path) -> None:
        """Something is about to be called `path`."""
        self.make(path.parent)
        if not path.exists():
            self._changed.add(path.parent)

    def _date(self, path: Path) -> None:
        """Within the day, the second and nanosecond by the name."""
        name = os.fsencode(path.relative_to(self._root))
        moment = (zlib.crc32(name) << 20 | zlib.adler32(name) & 0xFFFFF) * 7919 % _DAY_NS
        time = _FIRST_NS + self._number * _DAY_NS + moment
        os.utime(path, ns=(time, time), follow_symlinks=False)

    def _prose(self, sentences: int) -> str:
        return " ".join(self.random.choices(self._sentences, k=sentences))

    def _html(self, domain: str) -> bytes:
        body = "\n".join(f'<p class="text">{self._prose(6)}</p>' for _ in range(self.random.randrange(8, 28)))
        request = f"{self.random.getrandbits(128):032x}"
        return _HTML.format(domain=domain, title=self._prose(1), request=request, body=body).encode()

    def _json(self, domain: str) -> bytes:
        items = [
            {
                "id": self.random.getrandbits(31),
                "url": f"https://{domain}/{self.random.getrandbits(40):x}",
                "title": self._prose(1),
                "price": {"amount": self.random.randrange(100, 99999), "currency": "EUR"},
                "description": self._prose(3),
            }
            for _ in range(self.random.randrange(6, 20))
        ]
        return json.dumps({"source": domain, "scraped": self._name, "items": items}, indent=1).encode()


def _sentences(seed: int) -> list[str]:
    r = random.Random(f"sentences:{seed}")
    words = [
        "".join(r.choice("bdfgklmnprst") + r.choice("aeiou") for _ in range(r.randrange(1, 5))) for _ in range(900)
    ]
    return [" ".join(r.choices(words, k=r.randrange(6, 16))).capitalize() + "." for _ in range(3000)]


_HTML = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="https://{domain}/assets/site.4f2a91.css">
<meta name="request-id" content="{request}"></head>
<body><nav><a href="https://{domain}/">Home</a> <a href="https://{domain}/archive">Archive</a></nav>
<main>
{body}
</main><footer>Scraped from {domain}</footer></body></html>
"""

_ENV = """# Made up for the demo: nothing here opens anything
POSTGRES_SERVER=postgres
POSTGRES_PORT=5432
POSTGRES_USER=scraper
POSTGRES_PASSWORD=not-a-secret-postgres
POSTGRES_DB=scraper
REDIS_HOST=redis
REDIS_PASSWORD=not-a-secret-redis
MEILISEARCH_HOST=http://meilisearch:7700
MEILISEARCH_MASTER_KEY=not-a-secret-meilisearch
API_TOKEN={token}
"""

_COMPOSE = """services:
  scraper:
    image: images.example.com/scraper:{version}
    env_file: .env
    volumes: ["./data:/data", "./logs:/logs"]
    depends_on: [postgres, redis, meilisearch]
  postgres:
    image: postgres:17
  redis:
    image: redis:7
    command: ["redis-server", "/etc/redis.conf"]
  meilisearch:
    image: getmeili/meilisearch:v1.16
"""

_NGINX = """worker_processes auto;
events { worker_connections 1024; }
http {
    server {
        listen 443 ssl;
        server_name scraper.example.com;
        location / { proxy_pass http://scraper:8000; }
        location /uploads/ { root /data; }
    }
}
"""
