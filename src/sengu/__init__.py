"""sengu runs servers as many processes and replaces them without anyone noticing.

Public names are imported when they are asked for: the long-lived processes pay for none of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sengu.cli.run import run
    from sengu.work.api import Server, Worker

__version__ = "0.1.0"
__all__ = ["Server", "Worker", "__version__", "run"]

_HOMES = {"Server": "sengu.work.api", "Worker": "sengu.work.api", "run": "sengu.cli.run"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sengu' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
