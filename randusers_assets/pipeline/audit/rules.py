"""The row rules: which cells are bad, by the types of their columns."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from randusers_assets.pipeline.contract import Column, Contract, Offender
from randusers_assets.pipeline.flatten.frames import parse_timestamps
from randusers_assets.pipeline.storage.duplicates import Chunk, Keys, Numbers, int64_values

Octets = np.ndarray[tuple[int], np.dtype[np.uint8]]
Offsets = np.ndarray[tuple[int], np.dtype[np.int32]]
Batches = Callable[[], Iterable[pa.RecordBatch]]

# C0, DEL and C1 controls and the two Unicode line ends: they break a cell into lines, or CSV
# readers drop, cut at or refuse them.
CONTROL = "[\\x00-\\x1f\\x7f-\\x{9f}\\x{2028}\\x{2029}]"

# Addresses that email-validator accepts for certain; it is asked about every other one. A property
# test compares the two.
PLAIN_EMAIL = (
    r"^[a-z0-9]{1,20}(?:[._-][a-z0-9]{1,20}){0,2}@[a-z][a-z0-9]{0,30}(?:\.[a-z][a-z0-9]{0,30})?"
    r"\.(?:com|net|org)$"
)

# Offenders shown for each rule.
EXAMPLES = 5


def _where(mask: pa.Array) -> Numbers:
    """The rows where a mask is true; NULL is not."""
    rows = pc.indices_nonzero(mask)
    return np.frombuffer(rows.buffers()[1], dtype=np.uint64, count=len(rows)).astype(np.int64)


def _unfilled(values: pa.Array) -> Numbers:
    empty = values.is_null()
    if pa.types.is_string(values.type):
        empty = pc.or_kleene(empty, pc.invert(pc.binary_length(values).cast("bool")))
    return _where(empty)


def _invalid_email(values: pa.Array) -> Numbers:
    # Syntax alone, no look-up.
    unsure = _where(pc.invert(pc.match_substring_regex(values, PLAIN_EMAIL)))
    return np.array([row for row in unsure if not _is_email(values[row].as_py())], dtype=np.int64)


@lru_cache(maxsize=4096)
def _is_email(address: str) -> bool:
    from email_validator import EmailNotValidError, validate_email  # 0.1 s, and rarely needed

    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


def _not_single_line(values: pa.Array) -> Numbers:
    octets, offsets = _octets(values)
    octets = octets[offsets[0] : offsets[-1]]
    # Nearly all columns need no regular expression: printable ASCII lies between 0x20 and 0x7E, and
    # in UTF-8 the other control characters have one of these forms.
    if octets.min(initial=0xFF) >= 0x20:
        raw = b"" if octets.max(initial=0) < 0x7F else octets.tobytes()
        if not any(form in raw for form in (b"\x7f", b"\xc2", b"\xe2\x80\xa8", b"\xe2\x80\xa9")):
            return np.empty(0, dtype=np.int64)
    return _where(pc.match_substring_regex(values, CONTROL))


def _octets(values: pa.Array) -> tuple[Octets, Offsets]:
    """The bytes of a text column, and the offsets in them where texts start; the last one ends."""
    _, places, text = values.buffers()
    offsets = np.frombuffer(places, np.int32, len(values) + 1, values.offset * 4)
    return np.frombuffer(text or b"", dtype=np.uint8), offsets


def _not_a_timestamp(values: pa.Array) -> Numbers:
    return _where(pc.and_(parse_timestamps(values).is_null(), values.is_valid()))


@dataclass(frozen=True)
class RowRule:
    """A rule for single rows: what a good cell is, its columns, and what finds the bad rows."""

    name: str
    fact: str
    applies_to: Callable[[Column], bool]
    find_bad: Callable[[pa.Array], Numbers]
    description: str


_FIX = "fix them at the source, or set them aside with RANDUSERS_MAX_REJECTED_RATIO."

ROW_RULES = (
    RowRule(
        "emails_are_valid",
        "is an email address",
        lambda column: column.type == "email",
        _invalid_email,
        "Every address is one that email-validator accepts. If this fails, these rows can't be"
        f" emailed: {_FIX}",
    ),
    RowRule(
        "required_are_filled",
        "is filled",
        lambda column: column.required,
        _unfilled,
        f"No required column is NULL or empty. If this fails, rows are incomplete: {_FIX}",
    ),
    RowRule(
        "texts_are_single_line",
        "holds no control character",
        lambda column: column.is_text,
        _not_single_line,
        "No text holds a line end or another control character. If this fails, CSV readers would"
        f" cut or drop cells: {_FIX}",
    ),
    RowRule(
        "timestamps_are_valid",
        "is a UTC timestamp to the millisecond",
        lambda column: column.type == "timestamp",
        _not_a_timestamp,
        "Every timestamp has the one form that the contract knows, on a day that exists. If this"
        f" fails, the API may have changed the form: adapt contract.py, or {_FIX}",
    ),
)


@cache
def row_rules(contract: Contract) -> dict[str, tuple[RowRule, list[Column]]]:
    """The rules that a contract needs, by name, each with its columns."""
    return {
        rule.name: (rule, columns)
        for rule in ROW_RULES
        if (columns := [column for column in contract.columns if rule.applies_to(column)])
    }


@dataclass
class RuleCount:
    """How many rows break one rule, and the first few of them."""

    rows: int = 0
    examples: list[Offender] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The rows of one batch that break a rule, each with its reasons."""

    reasons: dict[int, list[str]]

    def good(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that break no rule, in order."""
        if not self.reasons:
            return batch
        kept = np.ones(batch.num_rows, dtype=bool)
        kept[list(self.reasons)] = False
        return batch.filter(kept)


class Audit:
    """The row rules over a snapshot, batch by batch; 8 bytes of disk a row and unique column."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.rows = self.rejected = 0
        self.broken = {name: RuleCount() for name in row_rules(contract)}
        self.nulls = dict.fromkeys(contract.by_name, 0)
        self._keys = {name: Keys() for name in contract.unique}

    def add(self, batch: pa.RecordBatch) -> Verdict:
        """Judge one batch of flat rows in contract order."""
        reasons: dict[int, list[str]] = {}
        ids = batch.column(self.contract.key)
        for name, (rule, columns) in row_rules(self.contract).items():
            count, bad = self.broken[name], set[int]()
            for column in columns:
                values = batch.column(column.name)
                for row in rule.find_bad(values).tolist():
                    bad.add(row)
                    reasons.setdefault(row, []).append(f"{column.name}: {rule.fact}")
                    if len(count.examples) < EXAMPLES:
                        count.examples.append(_offender(column, values, ids, row))
            count.rows += len(bad)
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            self.nulls[name] += values.null_count
        for name, keys in self._keys.items():
            keys.add(_hash_keys(batch.column(name)))
        self.rows += batch.num_rows
        self.rejected += len(reasons)
        return Verdict(reasons)

    def count_duplicates(self, batches: Batches) -> dict[str, RuleCount]:
        """The rows that share a unique value; `batches` is read only where hashes meet."""
        counts = {}
        for name, keys in self._keys.items():
            chunks = partial(_chunks, self.contract.by_name[name], self.contract.key, batches)
            found = keys.count_duplicates(chunks, EXAMPLES)
            counts[name] = RuleCount(found.sharing, [example for _, example in found.examples])
        return counts


def _chunks(column: Column, key: str, batches: Batches) -> Iterator[Chunk]:
    for batch in batches():
        filled = batch.filter(batch.column(column.name).is_valid())
        values, ids = filled.column(column.name), filled.column(key)
        offender = partial(_offender, column, values, ids)
        yield _hash_keys(values), partial(_cell, values), offender


def _cell(values: pa.Array, row: int) -> Any:  # noqa: ANN401  # a value of any column
    return values[row].as_py()


def _offender(column: Column, values: pa.Array, ids: pa.Array, row: int) -> Offender:
    return Offender(_cell(ids, row), column.name, column.mask(_cell(values, row)))


def _hash_keys(values: pa.Array) -> Numbers:
    """A 64-bit key for each value that is not NULL: the number itself, or the hash of the text."""
    values = values.drop_null()
    if values.type == "int64":
        return int64_values(values)
    return np.fromiter(map(hash, values.to_pylist()), dtype=np.int64, count=len(values))


# Cells that a spreadsheet runs as a formula (OWASP: "CSV Injection"); signed numbers, times and
# phone numbers are harmless.
_FORMULA = r"^(?:[=@]|[+-].*[^0-9 .:()+-])"
_STARTS_FORMULA = np.isin(np.arange(256), [*b"=@+-"])  # by byte


def count_formulas(batch: pa.RecordBatch, contract: Contract, count: RuleCount) -> None:
    """Add the cells of a batch that start a formula to `count`, which counts cells here."""
    ids = batch.column(contract.key)
    for column in contract.columns:
        if column.is_text:
            values = batch.column(column.name)
            rows = _formula_rows(values).tolist()
            count.rows += len(rows)
            for row in rows[: EXAMPLES - len(count.examples)]:
                count.examples.append(_offender(column, values, ids, row))


def _formula_rows(values: pa.Array) -> Numbers:
    octets, offsets = _octets(values)
    filled = np.flatnonzero(offsets[1:] != offsets[:-1])
    # Only cells that start like a formula are matched with the regular expression.
    rows = filled[_STARTS_FORMULA[octets[offsets[filled]]]]
    if not rows.size:
        return rows
    suspects = values.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)]))
    return rows[_where(pc.match_substring_regex(suspects, _FORMULA))]
