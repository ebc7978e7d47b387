"""A spool returns any range of users as one slice, and is written once."""

import json
from pathlib import Path

import pytest

from randusers_sandbox.user_file import (
    SandboxError,
    generated_users,
    users_from_file,
    users_from_json,
)
from randusers_sandbox.users import user


def test_spool_slices_any_range_of_users(tmp_path: Path) -> None:
    """A slice is the users at those positions joined with commas, without one at either end."""
    spool = users_from_json([b'{"id":1}', b"2", b'"\xd0\xb3"'], tmp_path)
    assert len(spool) == 3
    assert spool.slice(0, 3) == b'{"id":1},2,"\xd0\xb3"'
    assert spool.slice(1, 2) == b"2"
    assert spool.slice(2, 3) == b'"\xd0\xb3"'
    assert spool.slice(2, 2) == b""
    empty = users_from_json([], tmp_path)
    assert (len(empty), empty.slice(0, 0)) == (0, b"")


def test_generated_users_are_the_users_of_the_seed(tmp_path: Path) -> None:
    """A generated spool has the users 1 to n of its seed."""
    spool = generated_users(3, tmp_path, seed=9)
    assert spool.slice(0, 3) == b",".join((user(1, 9), user(2, 9), user(3, 9)))


def test_generated_users_are_written_once(tmp_path: Path) -> None:
    """The same count and seed reuse the file; another count or seed does not."""
    first = generated_users(3, tmp_path)
    made = first.path.stat().st_ino
    assert generated_users(3, tmp_path).path.stat().st_ino == made
    generated_users(4, tmp_path)
    generated_users(3, tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 3


def test_generated_users_leave_no_half_a_spool(tmp_path: Path) -> None:
    """A failure while a spool is written leaves no file that could be reused."""
    with pytest.raises(TypeError):
        generated_users(3, tmp_path, seed="none")  # type: ignore[arg-type] # fails at user 1
    assert list(tmp_path.iterdir()) == []


def test_users_from_file_are_compacted(tmp_path: Path) -> None:
    """The elements of the array are served in order, without spaces or escaped letters."""
    users = [{"id": 1, "name": "Păun"}, {"id": 2, "postcode": "0270"}]
    file = tmp_path / "users.json"
    file.write_text(json.dumps(users, indent=2))
    spool = users_from_file(file, tmp_path / "spools")
    assert spool.slice(0, 2) == '{"id":1,"name":"Păun"},{"id":2,"postcode":"0270"}'.encode()


@pytest.mark.parametrize("content", ['{"data": []}', "<html>", "", '[{"id": 1},', '["\\ud800"]'])
def test_users_from_file_refuses_what_is_no_array(tmp_path: Path, content: str) -> None:
    """A file that is not a JSON array gives an error of one sentence with its path."""
    file = tmp_path / "users.json"
    file.write_text(content)
    with pytest.raises(SandboxError) as refusal:
        users_from_file(file, tmp_path)
    assert str(refusal.value).startswith(f"The users file {file} is not a JSON array of users (")
    assert "\n" not in str(refusal.value)


def test_users_from_file_names_a_missing_file(tmp_path: Path) -> None:
    """A missing file gives an error with its path and what to give instead."""
    with pytest.raises(SandboxError) as refusal:
        users_from_file(tmp_path / "none.json", tmp_path)
    assert str(refusal.value) == (
        f"The users file {tmp_path / 'none.json'} cannot be read (No such file or directory):"
        " give the path of a file that holds a JSON array of users."
    )
