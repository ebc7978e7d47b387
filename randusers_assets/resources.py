"""The API, the bucket and the gates' policy as Dagster resources."""

from functools import cache
from typing import TYPE_CHECKING

import dagster as dg
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
from randusers_assets.settings import setting

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class RandomUsersApi(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """The endpoint of the contract, and how to download from it."""

    url: str = Field(description="The endpoint, without a query")
    page_size: int = Field(default=500, ge=1, description="Rows a page (`limit`)")
    concurrency: int = Field(default=8, ge=1, description="Pages downloaded at once")
    deadline_seconds: float = Field(default=3600, gt=0, description="For one whole snapshot")

    @property
    def api(self) -> Api:
        """The same as the pipeline takes it."""
        return Api(self.url, self.page_size, self.concurrency, self.deadline_seconds)

    def fetch(self, run: SnapshotRun, progress: Progress) -> RawUsers:
        """Fetch every row for a run; `randusers run` shows the progress its own way."""
        return run.fetch(self.api, progress)


class SnapshotStore(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """The bucket and prefix of the snapshots, and the run that uses them."""

    s3_resource: dg.ResourceDependency[S3Resource]
    bucket: str = Field(description="The bucket, `RANDUSERS_BUCKET`")
    prefix: str = Field(default="", description="Key prefix, `RANDUSERS_PREFIX`")
    kms_key_id: str = Field(default="", description="SSE-KMS key; else the bucket's default")

    _run: SnapshotRun | None = PrivateAttr(None)

    @property
    def store(self) -> Store:
        """The same as the pipeline takes it."""
        settings = self.s3_resource.model_dump_json()
        return Store(lambda: _client(settings), self.bucket, self.prefix, self.kms_key_id)

    @property
    def run(self) -> SnapshotRun:
        """The steps and results of this run, which all its steps in one process share."""
        if self._run is None:
            self._run = SnapshotRun(self.store, CONTRACT)
        return self._run

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002  # Dagster's signature
        """Release the run's temp files."""
        if self._run is not None:
            self._run.release()


@cache
def _client(settings: str) -> "S3Client":
    """A boto3 client, built once for the same settings: S3Resource builds one for each call."""
    client: S3Client = S3Resource.model_validate_json(settings).get_client()
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
