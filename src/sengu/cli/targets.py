"""What verbs could run, for shells: read from source, nothing imported.

Imported by `cli.serve`, `cli.work` and `cli.consume`.
"""

import ast
import os
from collections.abc import Callable, Iterable, Iterator

_MOST_FILES = 200  # a shell's user waits for us


def find_targets(directory: str, begun: str) -> list[str]:
    """`module:name` of all that looks like an application and begins with `begun`; if nothing
    does, the modules."""
    return _find(_modules(directory), begun, _applications)


def find_classes(directory: str, begun: str) -> list[str]:
    """The same of worker classes, also as `script.py:Class` for scripts of the current directory,
    where they are looked for whatever the modules' `directory` is."""
    return _find([*_modules(directory), *_scripts()], begun, _worker_classes)


def _find(
    places: Iterable[tuple[str, str]], begun: str, names_in: Callable[[ast.Module], Iterator[str]]
) -> list[str]:
    places = [(name, path) for name, path in places if name.startswith(begun.partition(":")[0])]
    targets = [
        f"{place}:{name}" for place, path in places[:_MOST_FILES] for name in names_in(_parse(path))
    ]
    return [target for target in targets if target.startswith(begun)] or [
        name for name, _path in places if name.startswith(begun)
    ]


def find_modules(directory: str, begun: str) -> list[str]:
    """Modules and scripts whose names begin so."""
    places = [*_modules(directory), *_scripts()]
    return [name for name, _path in places if name.startswith(begun)]


def _scripts() -> Iterator[tuple[str, str]]:
    for entry in sorted(_entries("."), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            yield entry.name, entry.path


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


def _parse(path: str) -> ast.Module:
    try:
        with open(path, "rb") as stream:
            return ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError):  # ValueError: it has a NUL in it
        return ast.Module([], [])


def _applications(tree: ast.Module) -> Iterator[str]:
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


def _worker_classes(tree: ast.Module) -> Iterator[str]:
    """`class Consumer(sengu.Worker)`, `class Consumer(Worker)`, and their subclasses."""
    known = {"Worker"}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not known.isdisjoint(map(_last_name, node.bases)):
            known.add(node.name)
            if not node.name.startswith("_"):
                yield node.name


def _last_name(base: ast.expr) -> str:
    match base:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
