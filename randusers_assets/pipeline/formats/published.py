"""Where the CSVs are, as far as it is known."""

from typing import NamedTuple

from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.storage.paths import csv_path, key_of

DAY = "YYYY-MM-DD"  # for the reader to replace


class Published(NamedTuple):
    """The bucket, the prefix and the first day; capitals stand for what is not set."""

    bucket: str
    prefix: str
    start_date: str

    def csv_key(self, contract: Contract) -> str:
        """The object key of a day's CSV, the day being `DAY`."""
        return key_of(self.prefix, csv_path(contract, DAY))

    def csv(self, contract: Contract) -> str:
        """The URI of that CSV."""
        return f"s3://{self.bucket}/{self.csv_key(contract)}"

    def folder(self, contract: Contract) -> str:
        """The URI of the folder that has one folder for each day."""
        return self.csv(contract).partition("dt=")[0]
