"""The part of the application that keeps its cache and its search behind its database, and what must hold of them.

Each order is a row first, then a key, then a document; so at any moment no store knows of an order that the database
does not have. The drill's checks say the same of what is restored.
"""

import threading
from types import TracebackType

import psycopg
import redis

from demo.cache import Cache
from demo.database import ROWS, Database, DatabaseFailed
from demo.search import Search, SearchFailed

_PATIENCE = 60.0
_PAUSE = 0.25
_AT_ONCE = 100
_TO_FOLLOW = "SELECT id, customer, cents FROM orders WHERE id > %s ORDER BY id DESC LIMIT %s"


class Follower:
    """A context: inside it keys and documents follow the newest orders, until their table is gone."""

    def __init__(self, database: Database, cache: Cache | None, search: Search) -> None:
        self._database = database
        self._cache = cache
        self._search = search
        self._ended = threading.Event()
        self._followed = threading.Event()
        self._failure = "no order came"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Follower":
        """Returns once all books can be searched, and the first orders have been followed."""
        books = self._database.ask("SELECT id, title FROM books ORDER BY id")
        self._search.add("books", [{"id": number, "title": title} for number, title in books], wait=True)
        self._thread.start()
        try:
            if not self._followed.wait(_PATIENCE):
                raise DatabaseFailed(f"the orders could not be followed: {self._failure}")
        except BaseException:
            self._ended.set()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def checks(self) -> str:
        """What must hold across the stores of a recovery point, as ``BACKUP_DRILL_CHECKS`` has it."""
        lines = [
            'books:    sql "select count(*) from books" == meilisearch "documents books"',
            f'searched: sql "select count(*) from orders where id > {ROWS}" >= meilisearch "documents orders"',
        ]
        if self._cache is not None:
            lines += [
                'cached:   sql "select max(id) from orders" >= redis "GET orders:last"',
                f'followed: redis "GET orders:last" > {ROWS}',
            ]
        return "\n".join(lines) + "\n"

    def _run(self) -> None:
        try:
            with self._database.connect() as connection:
                last = ROWS
                while not self._ended.is_set():
                    orders = connection.execute(_TO_FOLLOW, (last, _AT_ONCE)).fetchall()
                    if orders:
                        last = orders[0][0]
                        self._follow(orders, last)
                        self._followed.set()
                    self._ended.wait(_PAUSE)
        except (psycopg.Error, redis.RedisError, SearchFailed) as error:
            self._failure = str(error)  # of the table, when it is gone: then all has been seen

    def _follow(self, orders: list[tuple[int, str, int]], last: int) -> None:
        if self._cache is not None:
            pipe = self._cache.client().pipeline()
            for number, customer, cents in orders:
                pipe.hset(f"order:{number}", mapping={"customer": customer, "cents": cents})
            pipe.set("orders:last", last)
            pipe.execute()
        self._search.add(
            "orders", [{"id": number, "customer": customer, "cents": cents} for number, customer, cents in orders]
        )
