"""An account's file: lines that are only ever added, locked, chained, on the disk before a release.

Each line carries the digest of all lines before it (`privacy.accounting.chain`), so that a line
that was changed, added, moved or taken out is found; a cut at the end is not. `flock` keeps
processes apart, on one machine and on storage that several share. A line that a crash cut off was
followed by no release, since a release waits until its line is on the disk: it is taken out, and an
entry says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedfuse_ray.accounts import book as entries
from fedfuse_ray.accounts.book import Book
from fedfuse_ray.errors import FedfuseError, InputError, StorageError
from fedfuse_ray.files import storing
from fedfuse_ray.privacy.accounting.chain import Chain, follow

FILE = "privacy-account.jsonl"
OPTION = "--account"
_MODE = 0o600
_ID_BYTES = 16
_BEGINNING = b'{"entry": "account"'
_REMEDY = "restore it from a copy; a new account forgets what was charged"


class Writer:
    """An account that this process alone may change, for as long as it is open.

    Attributes:
        book: What it says.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle
        with storing(path):
            data = path.read_bytes()
        whole = _whole(data)
        self.book, self._chain = _understood(path, whole)
        self._size = len(whole)
        lines = []
        if torn := data[len(whole) :]:
            _check_ours(path, data)
            with storing(path):
                os.ftruncate(handle, self._size)
            lines.append(entries.repaired_line(len(torn), hashlib.sha256(torn).hexdigest()))
        if not self._chain.entries:
            lines.insert(0, entries.account_line(secrets.token_hex(_ID_BYTES)))
            with storing(path):
                _flush_name(path.parent)
        self.add(lines)

    def add(self, lines: Sequence[str]) -> None:
        """Add entries, and flush them to the disk before this returns.

        Raises:
            StorageError: None of them was added.
        """
        if not lines:
            return
        book = self.book.after(lines)
        chained, chain = self._chain.extend(lines)
        data = "".join(chained).encode()
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._handle, left) :]
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, self._size)
            raise StorageError(self._path, error.strerror or str(error)) from error
        self.book, self._chain, self._size = book, chain, self._size + len(data)


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Open an account for this process alone, and begin it where there is none.

    A new file can be read by its owner only.

    Raises:
        InputError: It is not as it was written.
        StorageError: The folder is not writable, or the disk is full.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _MODE)
    try:
        with storing(path):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield Writer(path, handle)
    finally:
        os.close(handle)


def read(path: Path) -> Book:
    """Return what an account says; one that is not there says nothing.

    Raises:
        InputError: It is not as it was written.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            data = file.read()
    except FileNotFoundError:
        return Book()
    except OSError as error:
        raise InputError(OPTION, path, f"can't be read: {error.strerror}") from None
    return _understood(path, _whole(data))[0]


def _whole(data: bytes) -> bytes:
    """Return the lines that were written to their end."""
    return data[: data.rfind(b"\n") + 1]


def _check_ours(path: Path, data: bytes) -> None:
    """Refuse to repair a file that never was an account.

    Raises:
        InputError: It was none.
    """
    if not (data.startswith(_BEGINNING) or _BEGINNING.startswith(data)):
        raise InputError(OPTION, path, "is no privacy account; name another file")


def _understood(path: Path, data: bytes) -> tuple[Book, Chain]:
    try:
        links = list(follow(data))
        book = Book().after(link.line for link in links)
        if links and not book.id:
            raise FedfuseError("it does not begin as an account")
    except FedfuseError as error:
        raise InputError(OPTION, path, f"was altered: {error}; {_REMEDY}") from None
    return book, links[-1].chain if links else Chain()


def _flush_name(folder: Path) -> None:
    """Have the disk keep the name of a file that was just made."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
