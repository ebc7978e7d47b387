"""What follows a published CSV, its Parquet copy and the data package, is proved as well."""

import io
from collections.abc import Callable
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.flatten.frames import PARQUET_TYPE
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import bytes_of, csv_of, frames_of, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import (
    COPY,
    DAY,
    DAY_AFTER,
    publish_users,
)
from randusers_assets_tests.pipeline.publish.test_verify import (
    AGAIN,
    ALTERED,
    difference,
    proofs,
    untrue,
)


def forge_copy(store: Store, table: pa.Table, **options: Any) -> None:  # noqa: ANN401  # pyarrow's own
    """Let the receipt name another Parquet copy that is stored as it should be."""
    body = io.BytesIO()
    pq.write_table(table, body, **options)
    stored = store.put(COPY, body.getvalue(), content_type=PARQUET_TYPE)
    bucket.edit_receipt(store, parquet_copy={"sha256": stored.sha256, "bytes": stored.size})


def test_verify_compares_the_rows_of_a_parquet_copy_of_another_pyarrow(store: Store) -> None:
    """Another version may compress the same rows to other bytes, and verify says so."""
    publish_users(store, DAY, users(3))
    own = f"parquet-cpp-arrow version {pa.cpp_version}"
    forge_copy(store, pq.read_table(pa.BufferReader(bucket.body_of(store, COPY))))
    assert proofs(store)[4] == (
        f"s3://{store.bucket}/{COPY} has the same rows, though not the same bytes (written by"
        f" {own}, here {own})"
    )


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_verify_of_a_receipt_with_another_parquet_copy_differs(store: Store, rows: int) -> None:
    """A changed cell, a row less or one more is found although all digests fit."""
    publish_users(store, DAY, users(3))
    copy = csv_of(users(rows, name_title="Dr")).parquet_copy
    assert copy
    forge_copy(store, pq.read_table(pa.BufferReader(bytes_of(copy))))
    raw = bucket.receipt_of(store).raw.uri
    assert difference(store) == untrue(store, f"{store.uri(COPY)} has other rows than {raw}")


def test_verify_of_a_parquet_copy_with_other_types_differs(store: Store) -> None:
    """Timestamps as text are not what the project writes."""
    publish_users(store, DAY, users(3))
    forge_copy(store, pa.Table.from_batches(frames_of(users(3)).batches()))
    raw = bucket.receipt_of(store).raw.uri
    assert difference(store) == untrue(store, f"{store.uri(COPY)} has other rows than {raw}")


def test_verify_of_a_parquet_copy_that_is_none_differs(store: Store) -> None:
    """An object that is not Parquet is one sentence."""
    publish_users(store, DAY, users(3))
    stored = store.put(COPY, b"other", content_type=PARQUET_TYPE)
    bucket.edit_receipt(store, parquet_copy={"sha256": stored.sha256, "bytes": stored.size})
    assert difference(store) == untrue(store, f"{store.uri(COPY)} is not Parquet")


@pytest.mark.parametrize(
    ("damage", "problem"), [(bucket.delete, "does not exist"), (bucket.overwrite, ALTERED)]
)
def test_verify_of_a_damaged_parquet_copy_differs_and_the_next_run_writes_it_again(
    store: Store, damage: Callable[[Store, str], None], problem: str
) -> None:
    """The CSV is proved first; the advice of the difference fixes the copy."""
    publish_users(store, DAY, users(3))
    damage(store, COPY)
    proved = verify(store, CONTRACT, DAY)
    assert len(list(islice(proved, 4))) == 4
    assert bucket.message_of(lambda: next(proved)) == f"{store.uri(COPY)} {problem}: {AGAIN}"
    publish_users(store, DAY, users(3))
    assert len(proofs(store)) == 6


@pytest.mark.parametrize("damage", [bucket.delete, bucket.overwrite])
def test_verify_of_a_damaged_data_package_differs(
    store: Store, damage: Callable[[Store, str], None]
) -> None:
    """It is compared for the day that it describes, the last one; other days do without."""
    for day in (DAY, DAY_AFTER):
        publish_users(store, day, users(3))
    assert len(proofs(store)) == 5
    damage(store, bucket.PACKAGE)
    assert len(proofs(store)) == 5
    csv = store.uri(paths.csv_path(CONTRACT, DAY_AFTER))
    assert bucket.message_of(lambda: list(verify(store, CONTRACT, DAY_AFTER))) == (
        f"s3://{store.bucket}/datapackage.json does not describe {csv}: materialize users_csv for"
        f" {DAY_AFTER}."
    )
