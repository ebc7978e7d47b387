"""The API, the bucket and the gates' policy as Dagster resources."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

import boto3
import dagster as dg
from botocore import UNSIGNED
from botocore.config import Config
from dagster_aws.s3 import S3Resource
from pydantic import Field, PrivateAttr

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import Policy
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.client import Api
from randusers_assets.pipeline.fetch.snapshot import Progress
from randusers_assets.pipeline.flatten.frames import RawUsers
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.pipeline.storage.tempfiles import close_temp_files
from randusers_assets.pipeline.storage.time_limits import (
    CONNECT_SECONDS,
    READ_SECONDS,
    limit_requests,
)
from randusers_assets.settings import checked_setting, setting

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class RandomUsersApi(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """The endpoint of the contract, and how to download from it."""

    # Not in the repr, which may come into a log: the password of the URL, and the token.
    url: str = Field(description="The endpoint, without a query", repr=False)
    page_size: int = Field(default=500, ge=1, description="Rows a page (`limit`)")
    concurrency: int = Field(default=8, ge=1, description="Pages downloaded at once")
    deadline_seconds: float = Field(default=3600, gt=0, description="For one whole snapshot")
    token: str = Field(default="", description="Bearer token, `RANDUSERS_API_TOKEN`", repr=False)

    @property
    def api(self) -> Api:
        """The same as the pipeline takes it; SnapshotError if its URL or token cannot be one."""
        return Api(
            checked_setting("RANDUSERS_API_URL", self.url),
            self.page_size,
            self.concurrency,
            self.deadline_seconds,
            checked_setting("RANDUSERS_API_TOKEN", self.token),
        )

    def fetch(self, run: SnapshotRun, progress: Progress) -> RawUsers:
        """Fetch every row for a run; `randusers run` shows the progress its own way."""
        return run.fetch(self.api, progress)


class SnapshotStore(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """The bucket and prefix of the snapshots, and the run that uses them."""

    s3_resource: dg.ResourceDependency[S3Resource]
    bucket: str = Field(description="The bucket, `RANDUSERS_BUCKET`")
    prefix: str = Field(default="", description="Key prefix, `RANDUSERS_PREFIX`")
    kms_key_id: str = Field(default="", description="SSE-KMS key; else the bucket's default")
    owner: str = Field(default="", description="The bucket's account, `RANDUSERS_BUCKET_OWNER`")
    publish_parquet: bool = Field(default=True, description="Also publish the rows as Parquet")

    _run: SnapshotRun | None = PrivateAttr(None)

    @property
    def store(self) -> Store:
        """The same as the pipeline takes it."""
        return self.run.store

    @property
    def run(self) -> SnapshotRun:
        """The steps and results of this run, which all its steps in one process share."""
        if self._run is None:
            settings = self.s3_resource.model_dump_json()
            place = self.bucket, self.prefix, self.kms_key_id, self.owner
            store = Store(lambda: _client(settings), *place)
            self._run = SnapshotRun(store, CONTRACT, parquet_copy=self.publish_parquet)
        return self._run

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["SnapshotStore"]:
        """Free the disk space of a run when it ends; what a person loads by hand stays."""
        with close_temp_files() if context.run else nullcontext():
            yield self


@cache
def _client(settings: str) -> "S3Client":
    """A boto3 client with time limits, built once for the same settings.

    S3Resource.get_client() builds one for each call, takes no timeouts and is slower.
    """
    s3 = S3Resource.model_validate_json(settings)
    client = boto3.session.Session(profile_name=s3.profile_name).client(
        "s3",
        region_name=s3.region_name,
        use_ssl=s3.use_ssl,
        verify=s3.verify,
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.aws_access_key_id,
        aws_secret_access_key=s3.aws_secret_access_key,
        aws_session_token=s3.aws_session_token,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": s3.max_attempts},
            signature_version=UNSIGNED if s3.use_unsigned_session else None,
        ),
    )
    limit_requests(client)
    return client


class SnapshotGate(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """What the gates let pass; a run's config may make an exception, with a reason on record."""

    # The setting is the class's default: a run config that gives one field keeps the defaults of
    # the others, but would lose what definitions.py had given.
    max_rejected_ratio: float = Field(
        default=float(setting("RANDUSERS_MAX_REJECTED_RATIO")),
        ge=0,
        le=1,
        description="Share of rows that may be set aside; more than the setting needs a reason",
    )
    accept_rejects: str = Field(default="", description="Why more may be set aside; recorded")
    accept_change: str = Field(default="", description="Why history may break; recorded")

    @property
    def policy(self) -> Policy:
        """The same as the pipeline takes it; SnapshotError if it allows more without a reason."""
        allowed = float(setting("RANDUSERS_MAX_REJECTED_RATIO"))
        if self.max_rejected_ratio > allowed and not self.accept_rejects:
            raise SnapshotError(
                f"The run config sets max_rejected_ratio to {self.max_rejected_ratio:g}, above"
                f" RANDUSERS_MAX_REJECTED_RATIO ({allowed:g}): add the reason, resources:"
                ' {snapshot_gate: {config: {accept_rejects: "why"}}}.'
            )
        return Policy(self.max_rejected_ratio, self.accept_rejects, self.accept_change)
