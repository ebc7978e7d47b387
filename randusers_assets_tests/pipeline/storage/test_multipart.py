"""A large file goes up in parts, whole and conditionally, or leaves nothing behind."""

import errno
import hashlib
import io

import pytest

from randusers_assets.pipeline.errors import Conflict
from randusers_assets.pipeline.storage import multipart, s3
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets_tests.pipeline.publish.bucket import message_of

MIB = 1 << 20


class BreakingFile(TempFile):
    """A temp file on a disk that fails after the first part."""

    def reader(self) -> io.BufferedReader:
        """Read 5 MiB, then fail."""

        class Breaking(io.BufferedReader):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() == 5 * MIB:
                    raise OSError(errno.EIO, "the disk is broken")
                return super().read(size)

        return Breaking(super().reader().detach())


LARGE = b"0123456789abcdef" * (11 * MIB // 16)


def large(monkeypatch: pytest.MonkeyPatch, file: TempFile) -> TempFile:
    """A body of two full parts and a rest, S3's smallest part being 5 MiB."""
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", 5 * MIB)
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * MIB)
    with file.writer() as writer:
        writer.write(LARGE)
    return file


def test_put_in_parts_writes_the_same_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file goes up in three parts, and is conditional like any other put."""
    file = large(monkeypatch, TempFile())
    written = store.put("a", file, content_type="text/csv", replaces=None)
    assert written.etag.endswith('-3"')
    assert (store.head("a"), store.read("a", "advice")) == (written, (LARGE, written))
    assert store.client.head_object(Bucket=store.bucket, Key="a")["ContentType"] == "text/csv"
    for other in (None, Stored('"other"', 0, None, {})):
        with pytest.raises(Conflict):
            store.put("a", file, content_type="text/csv", replaces=other)
    assert store.put("a", file, content_type="text/csv", replaces=written) == written
    assert "Uploads" not in store.client.list_multipart_uploads(Bucket=store.bucket)


def test_failed_put_in_parts_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong digest of the whole, or a fault after the first part, aborts the upload."""
    file = large(monkeypatch, TempFile())
    other = hashlib.sha256(b"other").hexdigest()
    assert message_of(lambda: store.put("a", file, sha256=other, content_type="text/csv")) == (
        f"s3://{store.bucket}/a is not written: the bytes sent are not those that were audited"
        " (their SHA-256 differs): check this machine's disk and memory, then run again."
    )
    file = large(monkeypatch, BreakingFile())
    with pytest.raises(OSError, match="the disk is broken"):
        store.put("a", file, content_type="text/csv")
    assert store.head("a") is None
    assert "Uploads" not in store.client.list_multipart_uploads(Bucket=store.bucket)
