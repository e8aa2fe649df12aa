"""The architecture as data, and a checker that reads source text against it.

No module is imported to be checked, so a broken one is checked as well as any other.
`test_rules.py` shows that each rule can fail; `test_imports.py` applies them to `src`.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ROOT = "sengu"
ANYTHING = frozenset({"*"})

# Who may import whom. A unit is the longest key that a module's name begins with, and may
# always import itself. A package without a row is a violation: add the row first.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "model": frozenset({"errors"}),
    "planner": frozenset({"errors", "model"}),
    "wire": frozenset({"errors", "model"}),
    "config": frozenset({"errors", "model"}),
    "posix": frozenset({"errors"}),
    "listeners": frozenset({"errors", "model", "posix"}),
    "control": frozenset({"errors", "listeners", "model", "posix", "wire"}),
    "control.asking": frozenset({"control", "errors"}),
    "control.client": frozenset({"control", "control.asking", "errors", "model", "wire"}),
    "server": frozenset(
        {
            "config",
            "control",
            "dump",
            "errors",
            "listeners",
            "model",
            "passage",
            "planner",
            "posix",
            "wire",
        }
    ),
    "passage": frozenset({"errors", "model", "posix"}),
    "supervisor": frozenset(),
    "dump": frozenset({"errors", "posix", "wire"}),
    "forkserver": frozenset({"dump", "errors", "model", "posix", "wire", "worker"}),
    "worker": frozenset({"errors", "model", "posix", "wire"}),
    "http": frozenset({"errors", "model", "posix", "wire", "worker"}),
    "work": frozenset({"dump", "errors", "model", "posix", "wire", "worker"}),
    "testing": frozenset({"errors", "model", "posix", "wire", "work"}),
    "consumers": frozenset({"errors", "model", "posix", "work", "worker"}),
    "logwriter": frozenset({"errors", "posix"}),
    "container": frozenset({"errors", "model", "posix"}),
    "cli": ANYTHING,
    "demo": ANYTHING,
    "doctor": frozenset({"errors", "model", "posix"}),
    "__main__": ANYTHING,
}

PURE = frozenset({"model", "planner"})
# What lives in the server's process, where every module costs memory as long as it runs.
RESIDENT = PURE | {
    "config",
    "control",
    "dump",
    "errors",
    "listeners",
    "passage",
    "posix",
    "server",
    "wire",
}
TERMINAL = frozenset({"__main__", "cli", "demo"})

# Foreign modules, who may not import them, and why.
BANNED: tuple[tuple[frozenset[str], frozenset[str], str], ...] = (
    (
        frozenset({"os", "socket", "time", "logging", "signal"}),
        PURE,
        "the centre is pure: it gets facts and time as arguments",
    ),
    (
        frozenset({"asyncio", "dataclasses", "http.client", "logging", "subprocess"}),
        RESIDENT,
        "the server stays small: this costs memory as long as it runs",
    ),
    (
        frozenset({"click", "rich"}),
        frozenset(MAY_IMPORT) - TERMINAL,
        "only cli and demo talk to a terminal",
    ),
)

CLOCK = "posix.clock"
MAX_MODULE_LINES = 350
# One file by design, as it goes on alone while the package around it is replaced.
SUPERVISOR = "supervisor.main"
MAX_SUPERVISOR_LINES = 1400
MAX_FUNCTION_LINES = 60


class Violation(NamedTuple):
    """Where, and which rule. Reads as `path:line: rule`."""

    path: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}"


class Module(NamedTuple):
    """A module under check. `name` is without the root: `planner.deploy`, '' for the root."""

    name: str
    path: str
    source: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    def violation(self, line: int, rule: str) -> Violation:
        return Violation(self.path, line, rule)


def parse(path: str, source: str) -> Module:
    """`path` is relative to `src`, such as `sengu/planner/deploy.py`."""
    parts = path.removesuffix(".py").split("/")[1:]
    if parts[-1] == "__init__":
        parts.pop()
    return Module(".".join(parts), path, source, ast.parse(source, path))


def check(path: str, source: str) -> list[Violation]:
    """All violations in one file's source, in the order of its lines."""
    module = parse(path, source)
    found = [violation for rule in RULES for violation in rule(module)]
    return sorted(found, key=lambda violation: violation.line)


def unit_of(name: str) -> str | None:
    """The row of the table that governs a module of ours; None when there is none."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MAY_IMPORT), None)


def imported_names(module: Module) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of each thing imported, wherever in the module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute_source(module, node)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def _absolute_source(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = [ROOT, *(module.name.split(".") if module.name else [])]
    ups = node.level - module.is_package
    base = parts[: len(parts) - ups]
    return ".".join([*base, node.module] if node.module else base)


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def check_own_imports(module: Module) -> Iterator[Violation]:
    if not module.name:
        return  # the root's public names are lazy, and may come from anywhere
    unit = unit_of(module.name)
    if unit is None:
        yield module.violation(1, f"{module.name} has no row in tests/architecture/rules.py")
        return
    allowed = MAY_IMPORT[unit]
    for line, name in imported_names(module):
        if not _is_within(name, ROOT) or allowed == ANYTHING:
            continue
        target = name.partition(".")[2]
        # `from sengu import __version__`: the root is loaded before any of its modules.
        is_root = unit_of(target) is None and "." not in target
        if is_root and unit != "supervisor":
            continue
        if unit_of(target) != unit and unit_of(target) not in allowed:
            may = ", ".join(sorted(allowed)) or "nothing of ours"
            yield module.violation(line, f"{unit} imports {name}, but may import {may}")


def check_foreign_imports(module: Module) -> Iterator[Violation]:
    unit = unit_of(module.name)
    for line, name in imported_names(module):
        for banned, units, why in BANNED:
            if unit in units and any(_is_within(name, one) for one in banned):
                yield module.violation(line, f"{unit} imports {name}: {why}")
        is_stdlib = name.partition(".")[0] in sys.stdlib_module_names
        if unit == "supervisor" and not is_stdlib and not _is_within(name, ROOT):
            yield module.violation(line, f"supervisor imports {name}: standard library only")


def check_clock(module: Module) -> Iterator[Violation]:
    if module.name in (CLOCK, SUPERVISOR):
        return
    rule = f"only {CLOCK} reads the monotonic clock: take `now` as an argument"
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "time"
    }
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id=base), attr=attribute):
                if base in aliases and attribute.startswith("monotonic"):
                    yield module.violation(node.lineno, rule)
            case ast.ImportFrom(module="time", names=names):
                if any(alias.name.startswith("monotonic") for alias in names):
                    yield module.violation(node.lineno, rule)
            case _:
                pass


def check_excepts(module: Module) -> Iterator[Violation]:
    commented = _commented_lines(module.source)
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler) or node.lineno in commented:
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if any(one is None or _is_broad(one) for one in caught):
            yield module.violation(node.lineno, "a broad except says why on its line")


def _is_broad(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"Exception", "BaseException"}


def _commented_lines(source: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def check_sizes(module: Module) -> Iterator[Violation]:
    lines = len(module.source.splitlines())
    limit = MAX_SUPERVISOR_LINES if module.name == SUPERVISOR else MAX_MODULE_LINES
    if lines > limit:
        yield module.violation(1, f"{lines} lines in a module, at most {limit}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                rule = f"{lines} lines in {node.name}(), at most {MAX_FUNCTION_LINES}"
                yield module.violation(node.lineno, rule)


def check_docstring(module: Module) -> Iterator[Violation]:
    if not ast.get_docstring(module.tree):
        yield module.violation(1, "a module begins with a docstring: what lives here")


def check_name(module: Module) -> Iterator[Violation]:
    if module.name.rpartition(".")[2] in {"util", "utils", "helpers", "misc"}:
        yield module.violation(1, "name a module after what it holds")


RULES = (
    check_own_imports,
    check_foreign_imports,
    check_clock,
    check_excepts,
    check_sizes,
    check_docstring,
    check_name,
)


def report(violations: Iterable[Violation]) -> str:
    return "\n".join(f"src/{violation}" for violation in violations)
