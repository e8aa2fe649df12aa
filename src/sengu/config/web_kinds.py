"""Kinds of values that only web applications need, in the manner of `config.kinds`.

Nothing here looks at the system or knows any setting. Imported by `config.settings.serve`.
"""

import ipaddress
import re

from sengu.config.kinds import Kind, count_between, parse_text
from sengu.errors import UsageError

_MAX_THREADS = 1000
_MAX_ID = (1 << 32) - 2  # the last number means none (credentials(7))


def parse_threads(label: str, text: str) -> int:
    """How many threads a worker has, from 1 on."""
    return count_between(label, text, 1, _MAX_THREADS)


def parse_module(label: str, text: str) -> str:
    """The dotted name of a module."""
    parse_text(label, text)
    if "/" in text or text.endswith(".py"):
        name = re.sub(r"^\.?/+|\.py$", "", text).replace("/", ".")
        raise UsageError(f"{label} {text!r} is a file's name; write the module's: {name}")
    if not all(part.isidentifier() for part in text.split(".")):
        raise UsageError(f"{label} {text!r} is no module's name; write one as in package.module")
    return text


def parse_prefix(label: str, text: str) -> str:
    """A path in front of all others, without a slash at its end; `/` is none."""
    if not re.fullmatch(r"/[!-~]*", text) or re.search(r"[?#]|//", text):
        raise UsageError(f"{label} {text!r} is no path to be mounted at; write one as in /app")
    return text.rstrip("/")


def parse_health_path(label: str, text: str) -> str:
    """A path as clients ask for it, without a query."""
    if not re.fullmatch(r"/[!-~]*", text) or re.search(r"[?#%]", text):
        raise UsageError(f"{label} {text!r} is no path to ask for; write one as in /healthz")
    return text


def parse_proxy(label: str, text: str) -> str:
    """A network in CIDR notation, or `unix`."""
    if text == "unix":
        return text
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        hint = _network_around(text) or "write one as in 127.0.0.1, 10.0.0.0/8, fd00::/8 or unix"
        raise UsageError(f"{label} {text!r} is no network; {hint}") from None


def _network_around(text: str) -> str:
    """A hint for `10.0.0.1/8`, whose address says more than its mask leaves."""
    try:
        return f"did you mean {ipaddress.ip_network(text, strict=False)}?"
    except ValueError:
        return ""


def parse_account(label: str, text: str) -> str:
    """A user's or a group's name or number; whether there is one is another question."""
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.@$\\-]*", text):
        raise UsageError(f"{label} {text!r} is neither a name nor a number; give one of them")
    if text.isdecimal() and int(text[:20]) > _MAX_ID:
        raise UsageError(f"{label} {text!r} is above {_MAX_ID}, the highest there can be")
    return text


THREADS = Kind("number of threads", "N", parse_threads)
MODULE = Kind("module", "MODULE", parse_module)
PREFIX = Kind("path", "PATH", parse_prefix)
HEALTH_PATH = Kind("path", "PATH", parse_health_path, ("/healthz",))
PROXY = Kind("network", "NETWORK", parse_proxy, ("127.0.0.1", "10.0.0.0/8", "unix"))
ACCOUNT = Kind("user or group", "NAME", parse_account)
