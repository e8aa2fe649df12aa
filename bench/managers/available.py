"""Which managers are here. A peer that is not installed is left out, and the page says so."""

from bench.managers.base import Manager
from bench.managers.circus import Circus
from bench.managers.sengu import Sengu
from bench.managers.start_server import StartServer
from bench.managers.supervisor import Supervisor

PEERS: tuple[type[Manager], ...] = (StartServer, Supervisor, Circus)


def present(*kinds: type[Manager]) -> list[type[Manager]]:
    """Ours, and those of `kinds` (all peers when none is named) that are installed."""
    return [Sengu, *(kind for kind in _chosen(kinds) if kind.version() is not None)]


def missing_notes(*kinds: type[Manager]) -> list[str]:
    """A line for the page for each that is not installed."""
    absent = (kind.label for kind in _chosen(kinds) if kind.version() is None)
    return [f"{label} is not installed here." for label in absent]


def versions() -> str:
    """Of all that are installed, as in `sengu 0.1, start_server 0.35`."""
    kinds: tuple[type[Manager], ...] = (Sengu, *PEERS)
    found = ((kind.label, kind.version()) for kind in kinds)
    return ", ".join(f"{label} {version}" for label, version in found if version)


def _chosen(kinds: tuple[type[Manager], ...]) -> tuple[type[Manager], ...]:
    return kinds or PEERS
