"""`self.log`: a logger of the standard library that writes whole lines to stderr, where the server
takes them up. Imported by `engine` and `sengu.testing`.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec

from sengu.model.work import LogForm
from sengu.worker.identity import Identity

TRACE = 5  # below DEBUG, which is 10
_LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_NOT_EXTRA = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


class WorkerLogger(logging.Logger):
    """With a level below debug."""

    def trace(self, message: object, *arguments: object, **options: Any) -> None:
        if self.isEnabledFor(TRACE):
            self._log(TRACE, message, arguments, **options)

    def isEnabledFor(self, level: int) -> bool:
        """Without what others remember of it: no manager knows this one, and would forget that when
        its level changes."""
        return level >= self.level and not self.disabled and level > self.manager.disable


def make_logger(identity: Identity, level: str, form: LogForm) -> WorkerLogger:
    """The logger of a worker; no other handler of the process sees its lines."""
    logging.addLevelName(TRACE, "TRACE")
    logger = WorkerLogger(identity.service)
    set_level(logger, level)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(identity) if form is LogForm.JSON else _Text(identity))
    logger.addHandler(handler)
    return logger


def set_level(logger: logging.Logger, level: str) -> None:
    logger.setLevel(_LEVELS[level])


def _extra(record: logging.LogRecord) -> MutableMapping[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _NOT_EXTRA}


class _Text(logging.Formatter):
    """`12:00:00.123 INFO jobs[2/0 4711] awesome work n=1`: generation, slot, pid."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._who = f"{identity.service}[{identity.generation}/{identity.slot} {identity.pid}]"

    def format(self, record: logging.LogRecord) -> str:
        moment = self.formatTime(record, "%H:%M:%S")
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        head = f"{moment}.{int(record.msecs):03d} {record.levelname} {self._who}"
        text = f"{head} {record.getMessage()}{extra}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return text


class _Json(logging.Formatter):
    """An object a line."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._identity = identity

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "service": self._identity.service,
            "generation": self._identity.generation,
            "slot": self._identity.slot,
            "pid": self._identity.pid,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()
