"""Users in one file, joined with commas, so that a page is one contiguous slice of it."""

import hashlib
import inspect
import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from randusers_sandbox import locales
from randusers_sandbox import users as generator

_OFFSET_BYTES: Final = array("Q").itemsize


class SandboxError(RuntimeError):
    """The sandbox cannot start; the message says why and what to do."""


class UserSpool:
    """Read users, thread-safely, from a file of comma-joined JSON that ends with their offsets.

    Only the offsets are in memory: eight bytes a user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        footer = array("Q", os.pread(self._file, _OFFSET_BYTES, size - _OFFSET_BYTES))
        self._count = footer[0]
        length = (self._count + 1) * _OFFSET_BYTES
        # One more offset than users, as if a comma and another user followed the last one.
        self._offsets = array("Q", os.pread(self._file, length, size - _OFFSET_BYTES - length))

    def __len__(self) -> int:
        return self._count

    def slice(self, start: int, stop: int) -> bytes:
        """Return the comma-joined users from `start` up to, but not including, `stop`."""
        if start >= stop:
            return b""
        first = self._offsets[start]
        return os.pread(self._file, self._offsets[stop] - 1 - first, first)


def generated_users(count: int, directory: Path, seed: int = 0) -> UserSpool:
    """Return a spool of the generated users 1 to `count`; reuse the file if it exists."""
    if count < 0:
        raise SandboxError(f"--users is {count}: give 0 or more.")
    recipe = inspect.getsource(generator) + inspect.getsource(locales)
    version = hashlib.blake2b(recipe.encode(), digest_size=4).hexdigest()
    path = directory / f"users-{count}-seed{seed}-{version}.spool"
    if not path.exists():
        _write(path, (generator.user(number, seed) for number in range(1, count + 1)))
    return UserSpool(path)


def users_from_file(path: Path, directory: Path) -> UserSpool:
    """Return a spool of a file's JSON array, each element as compact JSON in UTF-8."""
    try:
        content = path.read_bytes()
        elements = msgspec.json.decode(content, type=list[msgspec.Raw])
        return users_from_json([_compact(element) for element in elements], directory)
    except OSError as error:
        raise SandboxError(
            f"The users file {path} cannot be read ({error.strerror}): give the path of a file"
            " that holds a JSON array of users."
        ) from error
    except ValueError as error:
        raise SandboxError(
            f"The users file {path} is not a JSON array of users ({error}): give a file that holds"
            " one, such as `data.data` of an API response."
        ) from error


def users_from_json(users: Sequence[bytes], directory: Path) -> UserSpool:
    """Return a spool of these users, each one JSON value whose bytes are served unchanged."""
    digest = hashlib.blake2b(digest_size=16)
    for user in users:
        digest.update(b"%d,%b" % (len(user), user))
    path = directory / f"users-{digest.hexdigest()}.spool"
    if not path.exists():
        _write(path, users)
    return UserSpool(path)


def _compact(element: msgspec.Raw) -> bytes:
    value = json.loads(bytes(element))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _write(path: Path, users: Iterable[bytes]) -> None:
    """Write a spool under a temporary name, then rename it, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            offsets = array("Q", [0])
            end = 0
            for user in users:
                if end:
                    file.write(b",")
                file.write(user)
                end += len(user) + 1
                offsets.append(end)
            file.write(offsets.tobytes())
            file.write(array("Q", [len(offsets) - 1]).tobytes())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
