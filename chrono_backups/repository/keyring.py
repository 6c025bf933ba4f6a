"""Creating and opening a repository's header and key slots."""

from __future__ import annotations

from chrono_backups.clock import Clock, to_text
from chrono_backups.errors import (
    Damaged,
    KeyMissing,
    ObjectExists,
    ObjectMissing,
    RepositoryExists,
    RepositoryMissing,
    UsageError,
    WrongKey,
)
from chrono_backups.pipeline.encryption import KEY_SIZE, Algorithm, Keys, NotAuthentic
from chrono_backups.pipeline.key_slots import SLOT_SALT_SIZE, key_id, unwrap, wrap
from chrono_backups.repository.format import FOLDERS, HEADER_KEY, KEYS_FOLDER, Header, KeySlot, prefix
from chrono_backups.storage.base import Storage


class Keyring:
    """A repository's header, its master key and the slots that wrap it."""

    def __init__(self, storage: Storage, header: Header, master: bytes, clock: Clock, current: str | None) -> None:
        self._storage = storage
        self._master = master
        self._clock = clock
        self.header = header
        self.current = current
        """The id of the key that opened it; None where the repository is plain."""

    def __repr__(self) -> str:
        return f"Keyring({self.header.repository_id.hex()}, key {self.current})"

    @classmethod
    def create(cls, storage: Storage, algorithm: Algorithm, operator_key: bytes | None, clock: Clock) -> Keyring:
        """Initialise an empty storage. Raises ``RepositoryExists``.

        The key slot is stored before the header: a header in sight always has a slot that opens it. Where only
        the header is missing (``init`` was cut short, or the object was lost), the slot's copy is put in its place.
        """
        try:
            storage.info(HEADER_KEY)
        except ObjectMissing:
            pass
        else:
            raise _exists(storage)
        header = Header(clock.random_bytes(16), algorithm, to_text(clock.now()))
        keyring = cls(storage, header, _plain_master(header), clock, None)
        if algorithm != "none":
            if operator_key is None:
                raise KeyMissing("an encrypted repository needs a key", hint="Make one: chrono-backups keygen")
            keyring = cls._interrupted(storage, operator_key, clock) or keyring
        if keyring.current is None:
            _check_empty(storage)
            if operator_key is not None and algorithm != "none":
                keyring = cls(storage, header, clock.random_bytes(KEY_SIZE), clock, key_id(operator_key))
                keyring.add(operator_key, "first key")
        try:
            storage.put(HEADER_KEY, keyring.header.encode())
        except ObjectExists as error:
            raise _exists(storage) from error
        return keyring

    @classmethod
    def _interrupted(cls, storage: Storage, operator_key: bytes, clock: Clock) -> Keyring | None:
        """What a slot of that key, stored without its header, belongs to."""
        identifier = key_id(operator_key)
        key = f"{KEYS_FOLDER}/{identifier}"
        try:
            slot = KeySlot.decode(storage.get(key), key)
        except ObjectMissing:
            return None
        return cls(storage, slot.header, _unwrapped(slot, operator_key, slot.header), clock, identifier)

    @classmethod
    def open(cls, storage: Storage, operator_key: bytes | None, clock: Clock) -> Keyring:
        """Raises ``RepositoryMissing``, ``KeyMissing``, ``WrongKey``, ``UnsupportedFormat`` or ``Damaged``."""
        try:
            header = Header.decode(storage.get(HEADER_KEY))
        except ObjectMissing as error:
            raise RepositoryMissing(
                f"there is no repository in {storage.name} ({storage.location})",
                hint="Make one: chrono-backups init. Or is the disk not mounted, or the path another?",
            ) from error
        if header.algorithm == "none":
            return cls(storage, header, _plain_master(header), clock, None)
        if operator_key is None:
            raise KeyMissing(
                f"the repository in {storage.name} is encrypted and no key is configured",
                hint="Set BACKUP_ENCRYPTION_KEY, BACKUP_ENCRYPTION_KEY_FILE or BACKUP_ENCRYPTION_KEY_COMMAND.",
            )
        identifier = key_id(operator_key)
        key = f"{KEYS_FOLDER}/{identifier}"
        try:
            slot = KeySlot.decode(storage.get(key), key)
        except ObjectMissing as error:
            known = [info.key.removeprefix(f"{KEYS_FOLDER}/") for info in storage.list(f"{KEYS_FOLDER}/")]
            raise WrongKey(
                f"the key {identifier} does not open the repository in {storage.name}; "
                f"it knows {', '.join(known) or 'no key at all'}",
                known=known,
                hint="Configure one of these keys. Never make a new one for old backups: nothing else opens them.",
            ) from error
        return cls(storage, header, _unwrapped(slot, operator_key, header), clock, identifier)

    def keys(self) -> Keys:
        """The keys that come from the master key."""
        return Keys(self.header.algorithm, self._master, self.header.repository_id)

    def slots(self) -> list[KeySlot]:
        """All key slots, by key id. Raises ``Damaged``."""
        return [KeySlot.decode(self._storage.get(info.key), info.key) for info in self._storage.list(f"{KEYS_FOLDER}/")]

    def add(self, operator_key: bytes, label: str) -> KeySlot:
        """Wrap the master key for one more key. Raises ``UsageError`` where that key has a slot."""
        identifier = key_id(operator_key)
        salt = self._clock.random_bytes(SLOT_SALT_SIZE)
        wrapped = wrap(operator_key, self._master, salt, self.header.bound(identifier))
        slot = KeySlot(identifier, to_text(self._clock.now()), label, wrapped, self.header)
        if self.header.algorithm == "none":
            raise UsageError("the repository is not encrypted: it has no keys")
        try:
            self._storage.put(slot.object_key, slot.encode())
        except ObjectExists as error:
            raise UsageError(f"the key {identifier} opens this repository already") from error
        return slot

    def remove(self, identifier: str) -> None:
        """Drop a slot. Raises ``UsageError`` for an unknown one, the last one or the one in use."""
        slots = [info.key.removeprefix(f"{KEYS_FOLDER}/") for info in self._storage.list(f"{KEYS_FOLDER}/")]
        if identifier not in slots:
            raise UsageError(f"there is no key {identifier}; the repository knows {', '.join(slots) or 'none'}")
        if identifier == self.current:
            raise UsageError(
                f"{identifier} is the key in use", hint="Configure another key of the repository, then remove this one."
            )
        self._storage.delete(f"{KEYS_FOLDER}/{identifier}")


def _unwrapped(slot: KeySlot, operator_key: bytes, header: Header) -> bytes:
    try:
        return unwrap(operator_key, slot.wrapped, header.bound(slot.key_id))
    except NotAuthentic as error:
        key = slot.object_key
        raise Damaged(f"{key} is damaged, or {HEADER_KEY} is that of another repository", key=key) from error


def _check_empty(storage: Storage) -> None:
    """Raises ``RepositoryExists`` where a repository lies that lost its header: another would hide it."""
    for kind in FOLDERS:
        found = next(iter(storage.list(prefix(kind))), None)
        if found is not None:
            raise RepositoryExists(
                f"{storage.name} ({storage.location}) holds {found.key}, of a repository whose header is missing",
                hint="Run `init` with a key of that repository, or copy the object `repository` from a replica.",
            )


def _plain_master(header: Header) -> bytes:
    """What stands in for the master key of a plain repository: public, and its own."""
    return header.repository_id * 2


def _exists(storage: Storage) -> RepositoryExists:
    return RepositoryExists(
        f"there is a repository in {storage.name} ({storage.location}) already",
        hint="Use it, or name an empty place.",
    )
