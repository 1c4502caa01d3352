"""docs/design.md's rule: a module imports only from modules listed above it; heavy imports stay where they belong."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TABLE = "\n".join(line.split("|")[1] for line in (ROOT / "docs/design.md").read_text().split("\n") if line.startswith("|"))
MODULES = [path.removesuffix(".py") for path in re.findall(r"`([a-z_/]+\.py)`", TABLE)]


def imported_modules(path: pathlib.Path) -> set[str]:
    """The modules a file imports, dotted; `from a import b` counts as both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_design_lists_every_module():
    on_disk = {
        str(path.relative_to(ROOT / "reid_jax").with_suffix(""))
        for path in (ROOT / "reid_jax").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert set(MODULES) == on_disk


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_above(module):
    above = {f"reid_jax.{name.replace('/', '.')}" for name in MODULES[: MODULES.index(module)]}
    packages = {"reid_jax", "reid_jax.data", "reid_jax.models"}
    modules = {f"reid_jax.{name.replace('/', '.')}" for name in MODULES}
    imports = imported_modules(ROOT / "reid_jax" / f"{module}.py")
    project = {name for name in imports if name in modules or name in packages}
    assert project <= above | packages, f"{module} imports upwards: {sorted(project - above - packages)}"
    not_allowed = {"ml_collections", "matplotlib", "tensorflow", "torch", "experiments", "data_prep"}
    if module == "report":
        not_allowed -= {"matplotlib"}
    foreign = {name.split(".")[0] for name in imports} & not_allowed
    assert not foreign and not any(name.startswith("absl") for name in imports)
