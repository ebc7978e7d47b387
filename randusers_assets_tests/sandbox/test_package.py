"""The sandbox is independent of the pipeline and light to import."""

from pathlib import Path

import randusers_sandbox
from randusers_assets_tests.pipeline.test_layers import imported_by
from randusers_assets_tests.sandbox.processes import python


def test_sandbox_imports_nothing_of_the_pipeline() -> None:
    """No module of the sandbox imports randusers_assets or dagster, not even in a function."""
    modules = Path(randusers_sandbox.__file__).parent.rglob("*.py")
    imports = {name for module in modules for name in imported_by(module)}
    assert "randusers_sandbox.user_file.SandboxError" in imports
    assert [name for name in imports if name.startswith(("randusers_assets", "dagster"))] == []


def test_sandbox_starts_without_heavy_imports() -> None:
    """The sandbox loads neither Dagster nor a data library, so that it starts within a second."""
    code = (
        "import sys, randusers_sandbox.api, randusers_sandbox.supervisor;"
        "print(sorted({'dagster', 'pandas', 'boto3', 'pyarrow'} & set(sys.modules)))"
    )
    assert python("-c", code).stdout == "[]\n"
