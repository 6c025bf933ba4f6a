"""What the generated files say: pages, product lists and logs as a web scraper keeps them, all from one seed.

The words follow Zipf's law and short ones are frequent, sites repeat their templates, ids and hashes are random:
so the text shrinks and deduplicates about as real scraped text does. The same seed gives the same bytes for ever;
the order of the draws is therefore part of the format (`chrono_backups_tests/test_benchmarks.py` holds its hash).
"""

import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

SITES = 60
_LEVELS = ["INFO"] * 90 + ["WARNING"] * 8 + ["ERROR"] * 2
_STATUSES = (200, 200, 200, 200, 301, 404, 503)
_FIRST_LOG_SECOND = 1735689600.0


@dataclass(frozen=True)
class Site:
    """A site's template: what a scraper sees over and over."""

    host: str
    classes: list[str]
    head: str
    navigation: str
    foot: str


class Text:
    """The texts of one seed. Every text has a random stream of its own, so any file can be made alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.words = _vocabulary(self.stream("vocab"))
        self._weights = list(accumulate(1.0 / (rank + 2.7) for rank in range(len(self.words))))
        self._sites: dict[int, Site] = {}

    def stream(self, *key: object) -> random.Random:
        """The random stream that this seed has for `key`."""
        return random.Random(":".join(map(str, (self.seed, *key))))

    def some(self, r: random.Random, count: int) -> list[str]:
        """`count` words, frequent ones more often."""
        return r.choices(self.words, cum_weights=self._weights, k=count)

    def sentence(self, r: random.Random) -> str:
        words = self.some(r, 6 + int(r.random() * 16))
        words[0] = words[0].capitalize()
        return " ".join(words) + "."

    def paragraph(self, r: random.Random) -> str:
        return " ".join(self.sentence(r) for _ in range(2 + int(r.random() * 5)))

    def site(self, number: int) -> Site:
        """Site `number`'s template."""
        if number not in self._sites:
            self._sites[number] = self._make_site(number)
        return self._sites[number]

    def _make_site(self, number: int) -> Site:
        r = self.stream("site", number)
        words = self.words
        host = "www.{}.{}".format("".join(self.some(r, 2)), r.choice(["com", "org", "net", "de", "io"]))
        classes = ["{}-{}__{}".format(*self.some(r, 3)) for _ in range(24)]
        head = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n' + "".join(
            f'<link rel="stylesheet" href="https://cdn.{host}/assets/{r.choice(words)}.{r.getrandbits(32):08x}.css">\n'
            f'<script defer src="https://cdn.{host}/js/{r.choice(words)}.{r.getrandbits(32):08x}.js"></script>\n'
            for _ in range(3 + number % 6)
        )
        links = "".join(
            f'<a class="{classes[1]}" href="/{r.choice(words)}/{r.choice(words)}">{r.choice(words)}</a>'
            for _ in range(10 + number % 25)
        )
        navigation = f'<body><nav class="{classes[0]}">{links}</nav>\n<main>'
        foot = f'</main><footer class="{classes[2]}">{self.paragraph(r)}</footer></body></html>\n'
        return Site(host, classes, head, navigation, foot)

    def html(self, r: random.Random, number: int, size: int) -> str:
        """A page of site `number`, cut to `size` characters."""
        site = self.site(number)
        title = f"<title>{self.sentence(r)}</title>"
        request = f'<meta name="request-id" content="{r.getrandbits(128):032x}">\n'
        out = [site.head, title, request, site.navigation]
        length = sum(map(len, out)) + len(site.foot)
        while length < size:
            element = self._element(r, site)
            out.append(element)
            length += len(element)
        out.append(site.foot)
        return "".join(out)[: max(size, 1)]

    def _element(self, r: random.Random, site: Site) -> str:
        classes, words = site.classes, self.words
        x = r.random()
        if x < 0.40:
            return f'<p class="{classes[3 + int(r.random() * 3)]}">{self.paragraph(r)}</p>\n'
        if x < 0.72:
            link = (
                f'<div class="{classes[6]}" data-id="{r.getrandbits(24)}"><a href="https://{site.host}/'
                f'{r.choice(words)}/{"-".join(self.some(r, 3))}-{r.getrandbits(20)}" class="{classes[7]}">'
            )
            image = (
                f'<img loading="lazy" src="https://img.{site.host}/{r.getrandbits(64):016x}.jpg" '
                f'width="320" height="240" alt="{" ".join(self.some(r, 4))}"></a>'
            )
            heading = f'<h3 class="{classes[8]}">{" ".join(self.some(r, 5))}</h3>'
            price = f'<span class="{classes[9]}">{r.randrange(2000)}.{r.randrange(100):02d} &euro;</span></div>\n'
            return link + image + heading + price
        if x < 0.9:
            rows = (f'  <li class="{classes[11]}">{" ".join(self.some(r, 4))}</li>\n' for _ in range(6))
            return f'<ul class="{classes[10]}">\n' + "".join(rows) + "</ul>\n"
        cells = (f"<tr><td>{r.choice(words)}</td><td>{r.randrange(100000)}</td></tr>" for _ in range(12))
        return f'<table class="{classes[12]}">' + "".join(cells) + "</table>\n"

    def json(self, r: random.Random, number: int, size: int) -> str:
        """A scraped product list of site `number`, cut to `size` characters."""
        host = self.site(number).host
        items: list[dict[str, object]] = []
        length = 200
        while length < size:
            items.append(self._item(r, host))
            length += len(json.dumps(items[-1])) + 30
        return json.dumps({"source": host, "schema": 3, "items": items}, indent=1)[: max(size, 1)]

    def _item(self, r: random.Random, host: str) -> dict[str, object]:
        return {
            "id": r.getrandbits(31),
            "url": f"https://{host}/{r.choice(self.words)}/{'-'.join(self.some(r, 3))}-{r.getrandbits(20)}",
            "title": " ".join(self.some(r, 7)),
            "price": {"amount": r.randrange(100, 99999), "currency": r.choice(["EUR", "USD", "GBP"])},
            "availability": r.choice(["in_stock", "out_of_stock", "preorder"]),
            "rating": round(r.random() * 5, 2),
            "reviews_count": r.randrange(4000),
            "images": [f"https://img.{host}/{r.getrandbits(64):016x}.jpg" for _ in range(int(r.random() * 3))],
            "description": self.paragraph(r),
            "scraped_at": (
                f"2025-{r.randrange(1, 13):02d}-{r.randrange(1, 29):02d}"
                f"T{r.randrange(24):02d}:{r.randrange(60):02d}:{r.randrange(60):02d}Z"
            ),
        }

    def log(self, r: random.Random, size: int, second: float = _FIRST_LOG_SECOND) -> bytes:
        """Whole log lines, `size` bytes or a little more, the first at Unix time `second`."""
        hosts = [self.site(number).host for number in range(SITES)]
        out: list[str] = []
        length = 0
        while length < size:
            second += r.random() * 0.05
            line = self._log_line(r.random, r.getrandbits, hosts, second)
            out.append(line)
            length += len(line)
        return "".join(out).encode()

    def _log_line(self, draw: Callable[[], float], bits: Callable[[int], int], hosts: list[str], second: float) -> str:
        words = self.words
        host = hosts[int(draw() * SITES)]
        x = draw()
        stamp = (
            f"2025-{int(second / 2592000) % 12 + 1:02d}-{int(second / 86400) % 28 + 1:02d}"
            f"T{int(second / 3600) % 24:02d}:{int(second / 60) % 60:02d}:{second % 60:06.3f}Z"
        )
        if x < 0.6:
            return (
                f"{stamp} {_LEVELS[int(draw() * 100)]} scraper.fetch worker={bits(4)} GET https://{host}/"
                f"{words[int(draw() ** 3 * 2000)]}/{words[int(draw() ** 3 * 2000)]}-{bits(20)} "
                f"status={_STATUSES[int(draw() * 7)]} bytes={bits(17)} elapsed_ms={draw() * 900:.1f} "
                f"req={bits(32):08x}\n"
            )
        if x < 0.85:
            return (
                f"{stamp} {_LEVELS[int(draw() * 100)]} scraper.parse worker={bits(4)} url=https://{host}/"
                f'{words[int(draw() ** 3 * 2000)]} items={bits(5)} title="{words[int(draw() ** 3 * 9000)]} '
                f'{words[int(draw() ** 3 * 9000)]} {words[int(draw() ** 3 * 9000)]}"\n'
            )
        return (
            f"{stamp} {_LEVELS[int(draw() * 100)]} scraper.store worker={bits(4)} table=pages inserted={bits(6)} "
            f"updated={bits(6)} took={draw():.3f}s\n"
        )


@functools.cache
def text_of(seed: int) -> Text:
    """The texts of `seed`, made once in a process."""
    return Text(seed)


def _vocabulary(r: random.Random, count: int = 30000) -> list[str]:
    consonants, vowels = "bcdfghjklmnprstvwz", "aeiou"
    seen: set[str] = set()
    out: list[str] = []
    while len(out) < count:
        syllables = min(5, 1 + int(len(out) ** 0.13 + r.random() * 1.6))
        word = "".join(
            r.choice(consonants) + r.choice(vowels) + (r.choice(consonants) if r.random() < 0.25 else "")
            for _ in range(syllables)
        )
        if word not in seen:
            seen.add(word)
            out.append(word)
    return out
