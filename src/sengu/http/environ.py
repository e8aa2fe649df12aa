"""The environ of a request: PEP 3333, RFC 3875.

On the path of every request, so a dict is copied and filled, and each field name is translated
once. Pure; used by `intake`.
"""

from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from sengu.http.head import (
    NO_CODING,
    HttpRequest,
    Refusal,
    check_host,
    check_target,
    split_line,
)

Environ = dict[str, Any]

# Names come from clients: neither many nor long ones are remembered.
_MAX_KNOWN = 1024
_MAX_KNOWN_BYTES = 64

# Those that decide about the connection and the body. Never among the known: they have to be met.
_DECISIVE = {"CONNECTION", "CONTENT_LENGTH", "EXPECT", "TRANSFER_ENCODING"}

_ABOUT_BODY = ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT")
_UNUSUAL_METHODS = {"HEAD", "CONNECT"}

CLOSE, KEEP = "Connection: close\r\n", "Connection: keep-alive\r\n"

_known_names: dict[bytes, str] = {}
_known_hosts: set[str | None] = set()


class Manner(msgspec.Struct, frozen=True):
    """How a request wants to be answered. `stays`: the client keeps the connection after it, and
    `connection` is the answer's field for that; `is_old`: it is of HTTP/1.0; `has_more`: there are
    fields about its body; `is_simple`: neither that nor a HEAD."""

    stays: bool = True
    connection: str = ""
    is_old: bool = False
    is_head: bool = False
    has_more: bool = False
    is_simple: bool = True


USUAL = Manner()


def build(request: HttpRequest, data: bytes, base: Environ) -> tuple[Environ, Manner]:
    """The environ of the head that `data` begins with, parsed as `request`; `base` is what all
    requests of the listener have in common. Raises Refusal."""
    try:
        method, target, protocol = data.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    except ValueError:
        method, target, protocol = split_line(data)
    path, query = target, ""
    if "?" in target:
        path, _, query = target.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    environ = base.copy()
    environ["REQUEST_METHOD"] = method
    environ["REQUEST_URI"] = target
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = protocol
    is_usual = target[0] == "/" and protocol == "HTTP/1.1" and method not in _UNUSUAL_METHODS
    known = _known_names.get
    for name, value in request.headers:
        key = known(name)
        if key is None or key in environ:
            is_usual = _take_unusual(environ, name, value.decode("latin-1")) and is_usual
        else:
            environ[key] = value.decode("latin-1")
    host = environ.get("HTTP_HOST")
    if host not in _known_hosts:
        _learn_host(host, protocol)
    return environ, USUAL if is_usual else _manner(environ)


def variable_of(name: bytes) -> str | None:
    """The variable for a field; None for one that is dropped.

    `X_Forwarded_For` would become the same variable as `X-Forwarded-For`, past a proxy that looks
    for the latter. `Proxy` would become HTTP_PROXY, which clients of HTTP obey.
    """
    key = name.decode("ascii").upper().replace("-", "_")
    if b"_" in name or key == "PROXY":
        return None
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _take_unusual(environ: Environ, name: bytes, value: str) -> bool:
    """Take in a field that is new, repeated, dropped or decisive; False when it is decisive."""
    key = variable_of(name)
    if key is None:
        return True
    if key in environ:  # RFC 9110 §5.3, RFC 6265 §5.4 for cookies
        environ[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value
    else:
        environ[key] = value
    if key.removeprefix("HTTP_") in _DECISIVE:
        return False
    if len(name) <= _MAX_KNOWN_BYTES and len(_known_names) < _MAX_KNOWN:
        _known_names[name] = key
    return True


def _learn_host(host: str | None, protocol: str) -> None:
    if host is None:
        if protocol != "HTTP/1.0":
            raise Refusal(400, "no Host")
        return
    check_host(host)
    if len(host) <= _MAX_KNOWN_BYTES and len(_known_hosts) < _MAX_KNOWN:
        _known_hosts.add(host)


def _manner(environ: Environ) -> Manner:
    """What is unusual about a request. Raises Refusal."""
    method, target = environ["REQUEST_METHOD"], environ["REQUEST_URI"]
    check_target(method, target)
    if target == "*":
        environ["PATH_INFO"] = ""
    if environ.get("HTTP_TRANSFER_ENCODING", "chunked").lower() != "chunked":
        raise Refusal(501, NO_CODING)
    stays = _wants_to_stay(environ)
    is_old = environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    has_more = not environ.keys().isdisjoint(_ABOUT_BODY)
    return Manner(
        stays=stays,
        connection=CLOSE if not stays else KEEP if is_old else "",
        is_old=is_old,
        is_head=method == "HEAD",
        has_more=has_more,
        is_simple=not has_more and method != "HEAD",
    )


def cut_root(environ: Environ, root_path: str) -> None:
    """PATH_INFO under SCRIPT_NAME, whether or not a proxy has cut that off."""
    path = environ["PATH_INFO"]
    rest = path.removeprefix(root_path)
    if rest == "" or rest.startswith("/"):
        environ["PATH_INFO"] = rest


def _wants_to_stay(environ: Environ) -> bool:
    """Whether the client keeps the connection after this exchange (RFC 9112 §9.3)."""
    if "HTTP_CONNECTION" not in environ:
        return bool(environ["SERVER_PROTOCOL"] != "HTTP/1.0")
    options = {option.strip(" \t") for option in environ["HTTP_CONNECTION"].lower().split(",")}
    if environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        return "keep-alive" in options and "close" not in options
    return "close" not in options
