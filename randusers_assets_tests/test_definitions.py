"""The wiring: it loads without a warning, without the webserver, and says what each asset is."""

import subprocess
import sys

import dagster as dg
import pytest

from randusers_assets.contract import COLUMNS
from randusers_assets.definitions import defs


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # this interpreter, on the test's own text
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_definitions_load_without_a_warning() -> None:
    """Loading the code location raises none of Python's warnings, preview or other."""
    done = _python("import randusers_assets.definitions")
    assert (done.returncode, done.stderr) == (0, "")


def test_definitions_load_without_the_webserver_and_the_heavy_libraries() -> None:
    """What is heavy is imported where it is used, and the webserver is never needed."""
    done = _python(
        "import sys, randusers_assets.definitions\n"
        "heavy = {'pandas', 'pyarrow', 'numpy', 'requests', 'email_validator',"
        " 'dagster_webserver', 'ministack', 'duckdb'}\n"
        "before = set(sys.modules)\n"
        "print(sorted(heavy & before))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_snapshot_gate_keeps_its_ratio_when_a_run_accepts_a_change() -> None:
    """The run config of the history gate's sentence changes nothing but `accept_change`."""
    done = _python(
        "import os\n"
        "os.environ['RANDUSERS_MAX_REJECTED_RATIO'] = '0.25'\n"
        "import dagster as dg\n"
        "from randusers_assets.pipeline.audit.encode import SnapshotGate\n"
        "from randusers_assets.definitions import defs\n"
        "@dg.op\n"
        "def look(snapshot_gate: SnapshotGate) -> None:\n"
        "    print(snapshot_gate.max_rejected_ratio, snapshot_gate.accept_change)\n"
        "@dg.job(resource_defs={'snapshot_gate': defs.resources['snapshot_gate']})\n"
        "def one_look() -> None:\n"
        "    look()\n"
        "config = {'snapshot_gate': {'config': {'accept_change': 'why'}}}\n"
        "one_look.execute_in_process(run_config={'resources': config})\n"
    )
    assert done.stdout == "0.25 why\n"


def test_definitions_are_exported_by_the_package() -> None:
    """`from randusers_assets import defs` gives the one Definitions object."""
    import randusers_assets

    assert randusers_assets.defs is defs
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = randusers_assets.nothing


def test_definitions_are_valid() -> None:
    """Every asset finds its IO manager, its resources and its upstream."""
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize("asset", ["users_df", "users_csv"])
def test_definitions_show_the_contract_as_column_schema(asset: str) -> None:
    """The UI shows each column of the contract with its description, in order."""
    spec = defs.resolve_asset_graph().get(dg.AssetKey(asset))
    schema = spec.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns] == [column.name for column in COLUMNS]


@pytest.mark.parametrize(
    ("bucket", "told"),
    [
        ("lake", "['s3://lake/people/users_csv/dt=YYYY-MM-DD/users.csv']\n"),
        ("", "[]\n"),
    ],
)
def test_definitions_tell_where_an_asset_is_once_there_is_a_bucket(bucket: str, told: str) -> None:
    """The address that the asset's page shows is the store's; without a bucket there is none."""
    done = _python(
        "import os\n"
        f"os.environ.update(RANDUSERS_BUCKET={bucket!r}, RANDUSERS_PREFIX='people')\n"
        "from randusers_assets.definitions import defs\n"
        "(spec,) = (s for s in defs.resolve_all_asset_specs() if s.key.path == ['users_csv'])\n"
        "print([value for name, value in spec.metadata.items() if name == 'dagster/uri'])\n"
    )
    assert (done.stdout, done.stderr) == (told, "")


def test_definitions_describe_own_and_tag_every_asset() -> None:
    """Each asset has a description that states its grain, owners, kinds and a code version."""
    graph = defs.resolve_asset_graph()
    for key in (dg.AssetKey(name) for name in ("raw_users", "users_df", "users_csv")):
        node = graph.get(key)
        assert node.description is not None
        assert node.description.startswith("One ")
        assert list(node.owners) == ["team:data-engineering"]
        assert node.group_name == "randusers"
        assert "s3" in node.kinds
        assert node.code_version
