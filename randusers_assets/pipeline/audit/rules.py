"""The row and snapshot rules, pure; the checks and the publishing step share them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from randusers_assets.contract import BY_NAME, COLUMNS, UNIQUE, Column, Offender, mask
from randusers_assets.pipeline.flatten.arrow import instants
from randusers_assets.pipeline.storage.duplicates import Keys

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Octets = np.ndarray[tuple[int], np.dtype[np.uint8]]
    Offsets = np.ndarray[tuple[int], np.dtype[np.int32]]
    RowNumbers = np.ndarray[tuple[int], np.dtype[np.int64]]
    Rule = Callable[[Column, pa.Array], RowNumbers]

# C0, DEL and C1 controls and the two Unicode line ends: what makes a cell more than one line,
# or what CSV readers drop, cut at or refuse.
CONTROL = "[\\x00-\\x1f\\x7f-\\x{9f}\\x{2028}\\x{2029}]"

# Addresses that email-validator is sure to accept; every other one is put to it. A property test
# holds the two against each other.
PLAIN_EMAIL = (
    r"^[a-z0-9]{1,20}(?:[._-][a-z0-9]{1,20}){0,2}@[a-z][a-z0-9]{0,30}(?:\.[a-z][a-z0-9]{0,30})?"
    r"\.(?:com|net|org)$"
)

# Offenders that a finding names.
EXAMPLES = 5


def _where(mask_array: "pa.Array") -> "RowNumbers":
    """The rows where a mask is true; NULL is not."""
    import numpy as np
    import pyarrow.compute as pc

    rows = pc.indices_nonzero(mask_array)
    return np.frombuffer(rows.buffers()[1], dtype=np.uint64, count=len(rows)).astype(np.int64)


def _unfilled(column: Column, values: "pa.Array") -> "RowNumbers":
    """Rows whose value is NULL or the empty string."""
    import pyarrow.compute as pc

    empty = values.is_null()
    if column.type != "integer":
        has_length = pc.binary_length(values).cast("bool")
        empty = pc.or_kleene(empty, pc.invert(has_length))
    return _where(empty)


def _invalid_email(_column: Column, values: "pa.Array") -> "RowNumbers":
    """Rows whose address email-validator refuses (syntax alone, no look-up)."""
    import numpy as np
    import pyarrow.compute as pc

    unsure = _where(pc.invert(pc.match_substring_regex(values, PLAIN_EMAIL)))
    return np.array([row for row in unsure if not is_email(values[row].as_py())], dtype=np.int64)


@lru_cache(maxsize=4096)
def is_email(address: str) -> bool:
    """Whether email-validator accepts the address."""
    from email_validator import EmailNotValidError, validate_email

    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


def _not_single_line(_column: Column, values: "pa.Array") -> "RowNumbers":
    """Rows whose text holds a control character."""
    import numpy as np
    import pyarrow.compute as pc

    octets, offsets = _octets(values)
    octets = octets[offsets[0] : offsets[-1]]
    if not octets.size:
        return np.empty(0, dtype=np.int64)
    # To look at the bytes spares nearly all columns the regular expression: printable ASCII lies
    # between 0x20 and 0x7E, and in UTF-8 the other control characters have one of these forms.
    if octets.min() >= 0x20:
        raw = b"" if octets.max() < 0x7F else octets.tobytes()
        if not any(form in raw for form in (b"\x7f", b"\xc2", b"\xe2\x80\xa8", b"\xe2\x80\xa9")):
            return np.empty(0, dtype=np.int64)
    return _where(pc.match_substring_regex(values, CONTROL))


def _octets(values: "pa.Array") -> "tuple[Octets, Offsets]":
    """The bytes that a text column is in, and where in them each text starts, and the last ends."""
    import numpy as np

    _, places, text = values.buffers()
    offsets = np.frombuffer(places, np.int32, len(values) + 1, values.offset * 4)
    return np.frombuffer(text or b"", dtype=np.uint8), offsets


def _not_an_instant(_column: Column, values: "pa.Array") -> "RowNumbers":
    """Rows whose text is not a timestamp of the contract's one form, on a day that exists."""
    import pyarrow.compute as pc

    return _where(pc.and_(instants(values).is_null(), values.is_valid()))


@dataclass(frozen=True)
class RowRule:
    """A rule for single rows: what is true of a good cell, where, who breaks it, what then."""

    fact: str
    columns: tuple[str, ...]
    broken: "Rule"
    description: str


ROW_RULES: Mapping[str, RowRule] = {
    "emails_are_valid": RowRule(
        "is an email address",
        ("email",),
        _invalid_email,
        "Every email is one that email-validator accepts. Failing means that users cannot be"
        " written to: mend them at the source, or set them aside by RANDUSERS_MAX_REJECTED_RATIO.",
    ),
    "required_are_filled": RowRule(
        "is filled",
        tuple(c.name for c in COLUMNS if c.required),
        _unfilled,
        "No required column is NULL or empty. Failing means that users are incomplete: mend them"
        " at the source, or set them aside by RANDUSERS_MAX_REJECTED_RATIO.",
    ),
    "texts_are_single_line": RowRule(
        "holds no control character",
        tuple(c.name for c in COLUMNS if c.type != "integer"),
        _not_single_line,
        "No text holds a line end or another control character. Failing means that CSV readers"
        " would cut or drop cells: mend them at the source, or set such users aside by"
        " RANDUSERS_MAX_REJECTED_RATIO.",
    ),
    "timestamps_are_valid": RowRule(
        "is a UTC timestamp to the millisecond",
        tuple(c.name for c in COLUMNS if c.type == "timestamp"),
        _not_an_instant,
        "Every timestamp has the one form that the contract knows, on a day that exists. Failing"
        " means that the API changed its form: bring contract.py in line, or set such users aside"
        " by RANDUSERS_MAX_REJECTED_RATIO.",
    ),
}


@dataclass
class Finding:
    """How many users break one rule, and the first few of them."""

    users: int = 0
    examples: list[Offender] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What the row rules say of one batch: the rows that break any, each with its reasons."""

    reasons: dict[int, list[str]]

    def good(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """The rows that break no rule, in their order."""
        import numpy as np

        if not self.reasons:
            return batch
        kept = np.ones(batch.num_rows, dtype=bool)
        kept[list(self.reasons)] = False
        return batch.filter(kept)


class Audit:
    """The rules over a whole snapshot, batch by batch; 16 bytes of the disk a row."""

    def __init__(self) -> None:
        self.rows = 0
        self.rejected = 0
        self.findings = {name: Finding() for name in ROW_RULES}
        self.nulls = dict.fromkeys(BY_NAME, 0)
        self._keys = {name: Keys() for name in UNIQUE}

    def add(self, batch: "pa.RecordBatch") -> Verdict:
        """Judge one batch of flat rows in contract order."""
        reasons: dict[int, list[str]] = {}
        ids = batch.column("id")
        for name, rule in ROW_RULES.items():
            finding = self.findings[name]
            users: set[int] = set()
            for column in rule.columns:
                values = batch.column(column)
                for row in rule.broken(BY_NAME[column], values).tolist():
                    users.add(row)
                    reasons.setdefault(row, []).append(f"{column}: {rule.fact}")
                    if len(finding.examples) < EXAMPLES:
                        shown = mask(BY_NAME[column], values[row].as_py())
                        finding.examples.append(Offender(ids[row].as_py(), column, shown))
            finding.users += len(users)
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            self.nulls[name] += values.null_count
        for name in UNIQUE:
            self._keys[name].add(_keys(batch.column(name)))
        self.rows += batch.num_rows
        self.rejected += len(reasons)
        return Verdict(reasons)

    def repeated(self, batches: "Callable[[], Iterable[pa.RecordBatch]]") -> dict[str, Finding]:
        """The users whose `id` or `login_uuid` stands more than once.

        Texts are compared by hash first; `batches` is read again only where hashes meet.
        """
        return {
            name: _repeated(name, keys.repeated(), batches) for name, keys in self._keys.items()
        }


def _keys(values: "pa.Array") -> "RowNumbers":
    """A 64-bit key per value that is not NULL: the number itself, or the hash of the text."""
    import numpy as np

    values = values.drop_null()
    if values.type == "int64":
        numbers = np.frombuffer(values.buffers()[1], dtype=np.int64)
        return numbers[values.offset : values.offset + len(values)]
    return np.fromiter(map(hash, values.to_pylist()), dtype=np.int64, count=len(values))


def _repeated(
    name: str, suspects: "RowNumbers", batches: "Callable[[], Iterable[pa.RecordBatch]]"
) -> Finding:
    import numpy as np

    finding = Finding()
    if not suspects.size:
        return finding
    seen: dict[object, int] = {}
    for batch in batches():
        filled = batch.filter(batch.column(name).is_valid())
        values = filled.column(name)
        for row in np.flatnonzero(np.isin(_keys(values), suspects)).tolist():
            value = values[row].as_py()
            seen[value] = seen.get(value, 0) + 1
            if seen[value] == 2 and len(finding.examples) < EXAMPLES:
                shown = mask(BY_NAME[name], value)
                finding.examples.append(Offender(filled.column("id")[row].as_py(), name, shown))
    finding.users = sum(count for count in seen.values() if count > 1)
    return finding


# What a spreadsheet runs when it opens a cell as a formula (OWASP: "CSV Injection"), except for
# signed numbers, times and phone numbers, which it only reads.
FORMULA = r"^(?:[=@]|[+-].*[^0-9 .:()+-])"
_FORMULA_STARTS = b"=@+-"


def formulas(batch: "pa.RecordBatch", finding: Finding) -> None:
    """Count, in `finding.users`, the cells of a batch that start a formula."""
    for column in COLUMNS:
        if column.type == "integer":
            continue
        values = batch.column(column.name)
        for row in _formula_rows(values).tolist():
            finding.users += 1
            if len(finding.examples) < EXAMPLES:
                shown = mask(column, values[row].as_py())
                finding.examples.append(
                    Offender(batch.column("id")[row].as_py(), column.name, shown)
                )


def _formula_rows(values: "pa.Array") -> "RowNumbers":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    octets, offsets = _octets(values)
    if not octets.size:
        return np.empty(0, dtype=np.int64)
    starts, ends = offsets[:-1], offsets[1:]
    # Few cells start like one, and only they are put to the regular expression. An empty cell has
    # no first byte, and is given another's.
    first = octets[np.minimum(starts, octets.size - 1)]
    starting = np.isin(first, np.frombuffer(_FORMULA_STARTS, dtype=np.uint8))
    rows = np.flatnonzero(starting & (starts != ends))
    suspects = values.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)]))
    return rows[_where(pc.match_substring_regex(suspects, FORMULA))]


# Against the last published snapshot: the share by which the row count may move, and the part of
# all rows by which a column's NULLs may.
MAX_ROW_CHANGE = 0.2
MAX_NULL_SHARE_CHANGE = 0.1


def out_of_line(
    rows: int, nulls: Mapping[str, int], past_rows: int, past_nulls: Mapping[str, int]
) -> list[str]:
    """What a snapshot's counts have moved beyond the bounds, one phrase each; none when in line."""
    problems = []
    if abs(rows - past_rows) > MAX_ROW_CHANGE * past_rows:
        problems.append(f"{rows:,} rows after {past_rows:,} (bound: {MAX_ROW_CHANGE:.0%})")
    for column, count in nulls.items():
        past, of, past_of = past_nulls.get(column, 0), max(rows, 1), max(past_rows, 1)
        # Multiplied out: a difference of two rounded shares would miss the bound itself.
        if abs(count * past_of - past * of) > MAX_NULL_SHARE_CHANGE * of * past_of:
            problems.append(
                f"{column} is NULL in {count / of:.1%} after {past / past_of:.1%}"
                f" (bound: {MAX_NULL_SHARE_CHANGE:.0%} of the rows)"
            )
    return problems
