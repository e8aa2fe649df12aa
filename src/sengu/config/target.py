"""How an application is named: `module:attribute`, or `module:factory()` for one that is made.

Pure, and about the spelling only: the module is imported by the fork server and by nobody else.
Imported by `config.web`.
"""

import re

from sengu.errors import UsageError

_FORM = "MODULE:NAME, as in myapp:app or package.module:create_app()"
_MODULE = re.compile(r"[^\W\d][\w-]*(?:\.[^\W\d][\w-]*)*")  # importlib does not mind a hyphen
_CALL = re.compile(r"(?P<name>[^()]*)\((?P<arguments>.*)\)")


def check_target(text: str | None) -> str:
    """Return `text` if it names an application. Raises UsageError that says how to write it."""
    if not text:
        raise UsageError(f"no application was given; add it: sengu serve {_FORM}")
    module, colon, attribute = text.partition(":")
    if "/" in module or "\\" in module or module.endswith(".py"):
        raise UsageError(_is_a_file(text, module, attribute))
    if not colon:
        raise UsageError(
            f"application {text!r} is a module only; add the name that the application has in it, "
            f"as in {text if _is_module(text) else 'myapp'}:app"
        )
    call = _CALL.fullmatch(attribute)
    if call is not None and call["arguments"].strip():
        raise UsageError(
            f"application {text!r}: a factory is called without arguments; write a function that "
            f"takes none and calls {call['name']}"
        )
    name = attribute if call is None else call["name"]
    if not _is_module(module) or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"application {text!r} is not spelled right; write {_FORM}")
    return f"{module}:{name}{'' if call is None else '()'}"


def _is_a_file(text: str, module: str, attribute: str) -> str:
    """The error for a path: what was meant, if a module's name can be made from it."""
    folder, _, file = module.rpartition("/")
    name = file.removesuffix(".py")
    attribute = attribute or "app"
    packages = folder.removeprefix("./").strip(".").replace("/", ".")
    dotted = f"{packages}.{name}" if packages else name
    if folder.startswith(("/", "..", "~")) or not _is_module(dotted):
        advice = f"--dir {folder or '.'} {name if _is_module(name) else 'myapp'}:{attribute}"
    else:
        advice = f"{dotted}:{attribute}"
    return f"application {text!r} is a file's name and not a module's; write {advice}"


def _is_module(name: str) -> bool:
    return _MODULE.fullmatch(name) is not None
