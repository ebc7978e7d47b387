"""Users on disk, joined with commas: a page is one contiguous slice of one file."""

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
    """The sandbox cannot start; the message is one sentence that says why and what to do."""


class UserSpool:
    """The users of one API: their JSON joined with `,`, in one file that ends with the offsets.

    Memory is eight bytes a user. Reading is thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        footer = array("Q", os.pread(self._file, _OFFSET_BYTES, size - _OFFSET_BYTES))
        self._count = footer[0]
        length = (self._count + 1) * _OFFSET_BYTES
        # Start of each user, then one past the last user and its would-be comma.
        self._offsets = array("Q", os.pread(self._file, length, size - _OFFSET_BYTES - length))

    def __len__(self) -> int:
        return self._count

    def slice(self, start: int, stop: int) -> bytes:
        """Return the users `start` to `stop` (exclusive, within 0 and the count), comma-joined."""
        if start >= stop:
            return b""
        first = self._offsets[start]
        return os.pread(self._file, self._offsets[stop] - 1 - first, first)


def generated_users(count: int, directory: Path, seed: int = 0) -> UserSpool:
    """Return a spool of the generated users 1 to `count`, made once and then reused."""
    if count < 0:
        raise SandboxError(f"--users is {count}: give a count of users from 0.")
    recipe = inspect.getsource(generator) + inspect.getsource(locales)
    version = hashlib.blake2b(recipe.encode(), digest_size=4).hexdigest()
    path = directory / f"users-{count}-seed{seed}-{version}.spool"
    if not path.exists():
        _write(path, (generator.user(number, seed) for number in range(1, count + 1)))
    return UserSpool(path)


def users_from_file(path: Path, directory: Path) -> UserSpool:
    """Return a spool of the elements of a JSON array, compacted and in UTF-8.

    Raises:
        SandboxError: The file cannot be read, or is not a JSON array.
    """
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
            f"The users file {path} is not a JSON array of users ({error}): give a file that is"
            " one, such as the `data.data` of one answer of the API."
        ) from error


def users_from_json(users: Sequence[bytes], directory: Path) -> UserSpool:
    """Return a spool of chosen users, each the bytes of one JSON value, served as they are."""
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
    """Write a spool under a temporary name, then rename it: no reader sees half a spool."""
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
