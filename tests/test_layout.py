"""docs/design.md's rule: a module imports only from modules listed above it; heavy imports stay where they belong."""

import ast
import configparser
import re
import subprocess
import sys

import pytest
from tiny_data import ROOT

TABLE = "\n".join(
    line.split("|")[1] for line in (ROOT / "docs/design.md").read_text().split("\n") if line.startswith("|")
)
MODULES = [path.removesuffix(".py") for path in re.findall(r"`([a-z_0-9/]+\.py)`", TABLE)]
# From here on configs and flags are known.
FIRST_WITH_CONFIGS = next(place for place, module in enumerate(MODULES) if module.startswith("runs/"))
# Of the scripts, which are listed nowhere, what the layers above them may use.
ABOVE_SCRIPTS = ("source_model", "sweeps/", "cli/command_line")


def dotted(module):
    return f"reid_jax.{module.replace('/', '.')}"


def imported_modules(path):
    """The modules a file imports, dotted; `from a import b` counts as a.b where that is a module, else as a."""
    names, modules = set(), {dotted(module) for module in MODULES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (full & modules) or {node.module}
    return names


def test_design_lists_every_module():
    files = (path for path in (ROOT / "reid_jax").rglob("*.py") if path.name != "__init__.py")
    assert set(MODULES) == {str(path.relative_to(ROOT / "reid_jax").with_suffix("")) for path in files}


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_above(module):
    place = MODULES.index(module)
    imports = imported_modules(ROOT / "reid_jax" / f"{module}.py")
    above = {dotted(each) for each in MODULES[:place]}
    # A package's own name gives what the modules in it give.
    above |= {each.rpartition(".")[0] for each in above}
    project = {name for name in imports if name.split(".")[0] == "reid_jax"}
    if module.startswith(ABOVE_SCRIPTS):
        project = {name for name in project if not name.startswith(("reid_jax.experiments", "reid_jax.data_prep"))}
    assert project <= above | {"reid_jax"}, f"{module} imports upwards: {sorted(project - above)}"
    not_allowed = {"tensorflow", "torch"}
    if module != "pictures/plots":
        not_allowed |= {"matplotlib"}
    if place < FIRST_WITH_CONFIGS:
        not_allowed |= {"ml_collections", "absl"}
    assert not {name.split(".")[0] for name in imports} & not_allowed


def test_every_package_is_installed_and_nothing_beside_it():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = {path.parent for path in (ROOT / "reid_jax").rglob("*.py")}
    scripts = {path.parent for name in ("experiments", "data_prep") for path in (ROOT / name).rglob("*.py")}
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    expected |= {"reid_jax." + ".".join(folder.relative_to(ROOT).parts) for folder in scripts}
    assert set(config["options"]["packages"].split()) == expected


def test_the_library_is_imported_lazily():
    code = (
        "import sys, reid_jax; assert not {'jax', 'numpy', 'flax'} & sys.modules.keys(), 'slow import'; "
        "assert reid_jax.losses.repelled and reid_jax.models.resnet.resnet50 and 'jax' in sys.modules; "
        "assert callable(reid_jax.load_model) and callable(reid_jax.search) and callable(reid_jax.group); "
        "assert len(reid_jax.Samples.of_images(3)) == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
    import reid_jax

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = reid_jax.nothing
