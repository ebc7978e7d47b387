"""`randusers contract`: how to read the CSV, without Dagster, AWS and network."""

import os
from pathlib import Path

from dotenv import load_dotenv

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.formats import FORMATS
from randusers_assets.pipeline.formats.published import Published
from randusers_assets.settings import read_setting


def write_contract(format_name: str, output: Path | None) -> None:
    """Print the contract in a format, or write it to a file; SnapshotError if that fails."""
    load_dotenv(".env")  # as the other commands do; what is set already wins
    bucket, prefix = read_setting("RANDUSERS_BUCKET"), read_setting("RANDUSERS_PREFIX")
    # Without a bucket nothing is set up, so the prefix is still to be chosen, too.
    place = (bucket, prefix) if bucket else ("BUCKET", prefix or "PREFIX")
    text = FORMATS[format_name](CONTRACT, Published(*place, read_setting("RANDUSERS_START_DATE")))
    if output is None:
        print(text, end="")
    else:
        _replace(output, text)


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.parent / f".{path.name}.{os.getpid()}"
    try:
        if path.exists() and not path.is_file():
            raise FileExistsError(0, "it is not a file")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise SnapshotError(
            f"{path} cannot be written ({error.strerror}): choose another --output."
        ) from error
