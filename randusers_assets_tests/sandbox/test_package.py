"""The sandbox is independent of the pipeline and light to import."""

import ast
from pathlib import Path

import randusers_sandbox
from randusers_assets_tests.sandbox.processes import python


def _imported(module: Path) -> set[str]:
    """Return the top-level packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_sandbox_imports_nothing_of_the_pipeline() -> None:
    """No module of the sandbox imports randusers_assets or dagster, not even in a function."""
    modules = Path(randusers_sandbox.__file__).parent.rglob("*.py")
    imports = {module.name: _imported(module) for module in modules}
    assert "randusers_sandbox" in imports["api.py"]
    assert not [name for name in imports if imports[name] & {"randusers_assets", "dagster"}]


def test_sandbox_starts_without_heavy_imports() -> None:
    """The sandbox loads neither Dagster nor a data library, so that it starts within a second."""
    code = (
        "import sys, randusers_sandbox.api, randusers_sandbox.supervisor;"
        "print(sorted({'dagster', 'pandas', 'boto3', 'pyarrow'} & set(sys.modules)))"
    )
    assert python("-c", code).stdout == "[]\n"
