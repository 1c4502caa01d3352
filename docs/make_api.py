"""Writes docs/api.md, the public functions and classes of the library, from their docstrings.

python docs/make_api.py
"""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PATH = ROOT / "docs" / "api.md"
_INTRODUCTION = """# API

The public functions and classes of `reid_jax`, module by module in the order of [design.md](design.md): each module
imports only from those before it. Arguments, shapes, units and errors are in the docstrings (`help(reid_jax.losses.repelled)`).
`python docs/make_api.py` writes this page from the source, and a test checks that it is current.

For notebooks: `reid_jax.load_model`, `TrainedModel.embed`, `reid_jax.search`, `reid_jax.group`, `reid_jax.Samples.of_images`.
"""


def api_page() -> str:
    """Returns the page's text."""
    table = "\n".join(
        line.split("|")[1] for line in (ROOT / "docs/design.md").read_text().splitlines() if line[:1] == "|"
    )
    files = re.findall(r"`([a-z_0-9/]+\.py)`", table)
    return "\n".join([_INTRODUCTION, *(section for file in files if (section := _section(file)))])


def _section(file: str) -> str:
    tree = ast.parse((ROOT / "reid_jax" / file).read_text())
    entries = [entry for node in tree.body for entry in _entries(node)]
    if not entries:
        return ""
    module = "reid_jax." + file.removesuffix(".py").replace("/", ".")
    return "\n".join([f"## {module}", "", _summary(tree), "", *entries, ""])


def _entries(node: ast.stmt, owner: str = "") -> list[str]:
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return []
    if isinstance(node, ast.FunctionDef):
        return [f"- `{owner}{node.name}({_arguments(node)})`: {_summary(node)}"]
    methods = [entry for child in node.body for entry in _entries(child, f"{node.name}.")]
    return [f"- class `{owner}{node.name}`: {_summary(node)}", *(f"  {method}" for method in methods)]


def _arguments(node: ast.FunctionDef) -> str:
    """The names of a function's arguments, with the defaults that are plain values."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    texts = [_argument(*pair) for pair in zip(plain, defaults) if pair[0].arg not in ("self", "cls")]
    if arguments.vararg is not None:
        texts.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        texts.append("*")
    texts += [_argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    if arguments.kwarg is not None:
        texts.append(f"**{arguments.kwarg.arg}")
    return ", ".join(texts)


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return argument.arg if default is None else f"{argument.arg}={ast.unparse(default)}"


def _summary(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    text = ast.get_docstring(node) or ""
    return " ".join(text.partition("\n\n")[0].split())


if __name__ == "__main__":
    PATH.write_text(api_page())
