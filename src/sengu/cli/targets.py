"""What `sengu serve` and `sengu consume` could run in a directory, for shells.

It is read from source, and nothing is imported. Imported by `cli.serve` and `cli.consume`.
"""

import ast
import os
from collections.abc import Iterator

_MOST_FILES = 200  # a shell's user waits for us


def find_targets(directory: str, begun: str) -> list[str]:
    """`module:name` of all that looks like an application and begins with `begun`; if nothing
    does, the modules."""
    modules = [
        (name, path)
        for name, path in _modules(directory)
        if name.startswith(begun.partition(":")[0])
    ]
    targets = [
        f"{module}:{name}" for module, path in modules[:_MOST_FILES] for name in _applications(path)
    ]
    return [target for target in targets if target.startswith(begun)] or [
        name for name, _path in modules if name.startswith(begun)
    ]


def find_modules(directory: str, begun: str) -> list[str]:
    """The modules whose names begin so."""
    return [name for name, _path in _modules(directory) if name.startswith(begun)]


def _modules(directory: str, package: str = "") -> Iterator[tuple[str, str]]:
    """Names and files of the modules in a directory, and of those in its packages."""
    for entry in sorted(_entries(directory), key=lambda entry: entry.name):
        name, suffix = os.path.splitext(entry.name)
        if suffix == ".py" and name.isidentifier() and name != "__init__":
            yield package + name, entry.path
        elif entry.name.isidentifier() and os.path.isfile(f"{entry.path}/__init__.py"):
            yield package + entry.name, f"{entry.path}/__init__.py"
            if not package:  # deeper ones are seldom an application's
                yield from _modules(entry.path, f"{entry.name}.")


def _entries(directory: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:  # --dir names what is not there, or is not ours to read
        return []


def _applications(path: str) -> Iterator[str]:
    try:
        with open(path, "rb") as stream:
            tree = ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError):  # ValueError: it has a NUL in it
        return
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Call())
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Call())
            ):
                if not name.startswith("_") and name.lower() == name:
                    yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if _is_called_as_application(node):
                    yield name
            case _:
                pass


def _is_called_as_application(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """`app(environ, start_response)`, or `async app(scope, receive, send)`."""
    names = [argument.arg for argument in node.args.args]
    if isinstance(node, ast.AsyncFunctionDef):
        return names == ["scope", "receive", "send"]
    return len(names) == 2 and names[1] == "start_response"
