"""The pipeline needs no Dagster, and its folders import each other in one direction only."""

import ast
import re
from pathlib import Path

import pytest

from randusers_assets import pipeline
from randusers_assets_tests.sandbox.processes import python

ROOT = Path(pipeline.__file__).parent
PREFIX = f"{pipeline.__name__}."

# Each folder or module imports only itself and what stands after it.
LAYERS = [
    "steps",
    "formats",
    "publish",
    "audit",
    "fetch",
    "flatten",
    "storage",
    "contract",
    "errors",
]

MODULES = {str(path.relative_to(ROOT)): path for path in ROOT.rglob("*.py")}


def imported_by(path: Path) -> set[str]:
    """The full names that a module imports, also in a function and for types only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer_of(path: str) -> str:
    """The folder or module below `pipeline` that a path or the rest of a name starts with."""
    return path.replace("/", ".").split(".")[0]


def test_layers_are_all_that_the_pipeline_has() -> None:
    """No folder or module is left out of the order."""
    assert {layer_of(name) for name in MODULES} == {*LAYERS, "__init__"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_layers_import_in_one_direction(name: str) -> None:
    """A folder imports itself and what follows it, nothing around the pipeline and no Dagster."""
    own = layer_of(name)
    allowed = set(LAYERS[LAYERS.index(own) :]) if own in LAYERS else set()
    if own not in ("steps", "fetch"):
        allowed.discard("fetch")  # what is published comes from S3
    imports = (one for one in imported_by(MODULES[name]) if re.match("randusers_|dagster", one))
    assert {layer_of(one.removeprefix(PREFIX)) for one in imports} <= allowed


def test_pipeline_loads_neither_dagster_nor_pandas() -> None:
    """Importing every module of the pipeline, as `steps` and the workers do, loads neither."""
    code = (
        "import sys, pkgutil, importlib\n"
        "from randusers_assets import pipeline\n"
        "for module in pkgutil.walk_packages(pipeline.__path__, pipeline.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert 'randusers_assets.pipeline.steps' in sys.modules\n"
        "print(sorted({'dagster', 'dagster_aws', 'pandas'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert (done.stdout, done.stderr) == ("[]\n", "")
