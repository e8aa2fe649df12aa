"""Kinds of values: how each is spelled, read and checked.

A parser takes the setting's label, as the user wrote it (`--interval`, `KILL_OLD_DELAY`), and the
text; it raises UsageError with the way out. Nothing here looks at the system or knows any setting.
Imported by config and cli, and by the server through `config.pacing`.
"""

import re
import signal
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sengu.errors import UsageError
from sengu.model.address import parse_allowed
from sengu.model.address import parse_listen as read_listen
from sengu.model.address import parse_path as read_path
from sengu.model.address import parse_port as read_port
from sengu.model.container import ENGINES
from sengu.model.service import (
    MAX_WORKERS,
    Readiness,
    ReadyAfterDelay,
    ReadyByNotify,
    ReadyByProbe,
    Urge,
)

_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?P<unit>ms|s|m|h|d)?")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(?P<number>[0-9]{1,15})\s*(?P<unit>[kmg]?)(?:i?b)?", re.IGNORECASE)
_UNIT_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MAX_SIZE_BYTES = 1 << 50
_MAX_DURATION_SECONDS = 10 * 365 * 24 * 3600.0  # keeps every sum of times a finite, exact number
_MAX_COUNT = 1_000_000
_MAX_MODE = 0o777
_MAX_PERCENT = 90
_MAX_EXIT_CODE = 255


class Kind(msgspec.Struct, frozen=True):
    """How a value is read. `metavar` is its place-holder in help, `completes` what shells offer."""

    name: str
    metavar: str
    parse: Callable[[str, str], Any]
    completes: tuple[str, ...] = ()


def parse_duration(label: str, text: str) -> float:
    """Seconds from `5`, `0.5`, `500ms`, `2m`, `1h` or `1d`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{label} {text!r} is not a duration; write 5, 0.5, 500ms, 2m or 1h")
    seconds = float(match["number"]) * _UNIT_SECONDS[match["unit"] or "s"]
    if seconds > _MAX_DURATION_SECONDS:
        raise UsageError(f"{label} {text!r} is longer than ten years; give a shorter duration")
    return seconds


def parse_positive_duration(label: str, text: str) -> float:
    """A duration of more than nothing."""
    seconds = parse_duration(label, text)
    if seconds <= 0:
        raise UsageError(f"{label} {text!r} leaves no time at all; give more than 0 seconds")
    return seconds


def parse_size(label: str, text: str) -> int:
    """Bytes from `8190`, `64k`, `10m` or `1g`; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{label} {text!r} is not a size; write 8190, 64k, 10m or 1g")
    size = int(match["number"]) * _UNIT_BYTES[match["unit"].lower()]
    if not 0 < size <= _MAX_SIZE_BYTES:
        raise UsageError(f"{label} {text!r} is no size to work with; give 1 byte or more")
    return size


def parse_count(label: str, text: str) -> int:
    """A whole number from 0 on."""
    return count_between(label, text, 0, _MAX_COUNT)


def parse_positive_count(label: str, text: str) -> int:
    """A whole number from 1 on."""
    return count_between(label, text, 1, _MAX_COUNT)


def parse_workers(label: str, text: str) -> int:
    """How many workers there shall be, from 1 on."""
    return count_between(label, text, 1, MAX_WORKERS)


def parse_signal(label: str, text: str) -> int:
    """A signal from `TERM`, `SIGTERM`, `term` or its number."""
    if re.fullmatch(r"[0-9]{1,3}", text):
        if int(text) in signal.valid_signals():
            return int(text)
        raise UsageError(f"{label} {text!r}: there is no such signal; `kill -l` lists them")
    names = {member.name.removeprefix("SIG"): int(member) for member in signal.Signals}
    name = text.strip().upper().removeprefix("SIG")
    if name not in names:
        hint = _did_you_mean(name, names)
        raise UsageError(f"{label} {text!r} is not a signal; {hint}")
    return names[name]


def parse_percent(label: str, text: str) -> float:
    """The part that so many percent are: 0.1 from `10` or `10%`."""
    return count_between(label, text.strip().removesuffix("%"), 0, _MAX_PERCENT) / 100


def parse_exit_codes(label: str, text: str) -> tuple[int, ...]:
    """Exit codes from `3` or `3,4`."""
    codes = (count_between(label, code, 0, _MAX_EXIT_CODE) for code in text.split(","))
    return tuple(dict.fromkeys(codes))


def parse_escalation(label: str, text: str) -> tuple[Urge, ...]:
    """Signals and when they are due, from `TERM:10` or `TERM:10,QUIT:20`."""
    steps: list[Urge] = []
    for word in text.split(","):
        name, colon, seconds = word.partition(":")
        if not colon:
            raise UsageError(
                f"{label} {text!r}: {word!r} is not SIGNAL:SECONDS; write it as in TERM:10,QUIT:20"
            )
        step = Urge(parse_signal(label, name), parse_duration(label, seconds))
        if steps and step.after_seconds <= steps[-1].after_seconds:
            raise UsageError(
                f"{label} {text!r}: {word!r} is not later than the one before it; all seconds "
                "count from the first signal on"
            )
        steps.append(step)
    return tuple(steps)


def parse_mode(label: str, text: str) -> int:
    """File permissions from octal digits, `660`, `0660` or `0o660`."""
    match = re.fullmatch(r"(?:0o)?([0-7]{1,4})", text.strip())
    if match is None or int(match[1], 8) > _MAX_MODE:
        raise UsageError(f"{label} {text!r} is not a mode; write it in octal, such as 660 or 777")
    return int(match[1], 8)


def parse_readiness(label: str, text: str) -> Readiness:
    """`notify`, `tcp`, `http:PATH` or `delay:SECONDS`."""
    kind, colon, rest = text.partition(":")
    if kind == "notify" and not colon:
        return ReadyByNotify()
    if kind == "tcp" and not colon:
        return ReadyByProbe()
    if kind == "http" and colon:
        if re.fullmatch(r"/[!-~]*", rest):
            return ReadyByProbe(path=rest)
        raise UsageError(
            f"{label} {text!r}: {rest!r} is not a path to ask for; it starts with / and has "
            "neither spaces nor letters outside ASCII, as in http:/healthz"
        )
    if kind == "delay" and colon:
        return ReadyAfterDelay(parse_duration(f"{label} delay:", rest))
    raise UsageError(
        f"{label} {text!r} is no way to tell that a worker is ready; "
        "write notify, tcp, http:/PATH or delay:SECONDS"
    )


def parse_text(label: str, text: str) -> str:
    """Any text but none, such as a file's name."""
    if not text:
        raise UsageError(f"{label} is empty; give it a value or leave it out")
    if "\0" in text or not _is_unicode(text):
        raise UsageError(f"{label} {text!r} is not UTF-8 text; use another name")
    return text


def parse_flag(label: str, text: str) -> bool:
    """A switch, as Perl sees it: everything is on but nothing and 0."""
    return text not in ("", "0")


def count_between(label: str, text: str, least: int, most: int) -> int:
    """A whole number within bounds."""
    if not re.fullmatch(r"[0-9]{1,7}", text.strip()) or not least <= int(text) <= most:
        raise UsageError(f"{label} {text!r} is not a whole number from {least} to {most}; give one")
    return int(text)


def choice(name: str, words: Sequence[str], metavar: str = "") -> Kind:
    """The kind of a setting that is one of a few words."""

    def parse(label: str, text: str) -> str:
        if text not in words:
            known = f"{', '.join(words[:-1])} or {words[-1]}"
            raise UsageError(f"{label} {text!r} is no {name}; write {known}")
        return text

    return Kind(name, metavar or "|".join(words), parse, tuple(words))


def _is_unicode(text: str) -> bool:
    """False for what Python keeps of bytes that were not UTF-8 (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _did_you_mean(name: str, names: dict[str, int]) -> str:
    from difflib import get_close_matches  # slow to import, and needed for an error only

    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else "`kill -l` lists them"


DURATION = Kind("duration", "SECONDS", parse_duration)
POSITIVE_DURATION = Kind("duration above 0", "SECONDS", parse_positive_duration)
SIZE = Kind("size", "BYTES", parse_size)
COUNT = Kind("number", "N", parse_count)
POSITIVE_COUNT = Kind("number above 0", "N", parse_positive_count)
WORKERS = Kind("number of workers", "N", parse_workers)
SIGNAL = Kind("signal", "SIGNAL", parse_signal, ("TERM", "QUIT", "INT", "HUP", "USR1", "USR2"))
PERCENT = Kind("percentage", "PERCENT", parse_percent)
EXIT_CODES = Kind("exit codes", "CODE[,CODE]", parse_exit_codes)
ESCALATION = Kind("signals", "SIGNAL:SECONDS[,...]", parse_escalation)
MODE = Kind("octal mode", "MODE", parse_mode)
READINESS = Kind("readiness", "HOW", parse_readiness, ("notify", "tcp", "http:/", "delay:"))
STRATEGY = choice("strategy", ("surge", "rolling"), "HOW")
PORT = Kind("port", "[HOST:]PORT[=FD]", lambda _label, text: read_port(text))
SELF_BOUND = Kind("port", "[HOST:]PORT", parse_text)
SOCKET_PATH = Kind("socket path", "PATH", lambda _label, text: read_path(text))
ALLOWED = Kind("address to listen on", "ADDRESS", lambda _label, text: parse_allowed(text))
LISTEN = Kind("address to listen on", "ADDRESS", lambda _label, text: read_listen(text))
FILE = Kind("file", "FILE", parse_text)
DIRECTORY = Kind("directory", "DIR", parse_text)
TEXT = Kind("text", "TEXT", parse_text)
CONFIG = Kind("file or function", "FILE | MODULE:FUNCTION", parse_text)
ENGINE = Kind("command", "COMMAND", parse_text, ENGINES)
NAME = Kind("name", "NAME", parse_text)
FLAG = Kind("switch", "", parse_flag)
