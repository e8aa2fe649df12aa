"""Which web servers are here. A peer that is not installed is left out, and the page says so."""

from typing import ClassVar, Protocol

from bench.webservers.base import WebServer


class Versioned(Protocol):
    """What a page tells the version of."""

    label: ClassVar[str]

    @classmethod
    def version(cls) -> str | None: ...


def present(*kinds: type[WebServer]) -> list[type[WebServer]]:
    """Those of `kinds` that are installed."""
    return [kind for kind in kinds if kind.version() is not None]


def missing_notes(*kinds: type[Versioned]) -> list[str]:
    """A line for the page for each that is not installed."""
    return [f"{kind.label} is not installed here." for kind in kinds if kind.version() is None]


def versions(*kinds: type[Versioned]) -> str:
    """Of all that are installed, as in `sengu 0.1, gunicorn 23.0`."""
    found = {kind.label.split()[0]: kind.version() for kind in kinds}
    return ", ".join(f"{label} {version}" for label, version in found.items() if version)
