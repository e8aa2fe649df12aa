"""What a fork server loads once and its workers run: an application, as data.

The engine's own options are opaque here; the engine that runs them decodes them (`model.web` for
the web). Everything else concerns any application, and is the server's or the runtime's business.
"""

import msgspec


class Privileges(msgspec.Struct, frozen=True):
    """Whom the fork server and its workers become, after the listeners were bound."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    umask: int | None = None
    user: str = ""


class Wear(msgspec.Struct, frozen=True):
    """When a worker is worn out and replaced, its successor first.

    `jitter` is the part of `max_requests` and `max_age_seconds` by which workers differ, so that
    they do not wear out together: 0.1 is up to a tenth earlier.
    """

    max_requests: int | None = None
    max_rss_bytes: int | None = None
    max_age_seconds: float | None = None
    jitter: float = 0.1


class Application(msgspec.Struct, frozen=True):
    """`engine` is the module that can `load` it, `target` what people call it.

    `lanes` is how many requests a worker may have in hand whose progress the scoreboard tells.
    `files` are what workers append to: the server makes them, for `privileges` may not be enough.
    `is_configured`: it has a configuration, which is read in the fork server. `reads_obituaries`:
    its workers want to know how others have died, and with what in hand. `has_requests`: what
    workers put on the scoreboard are requests and connections.
    """

    engine: str
    target: str
    options: msgspec.Raw = msgspec.Raw(b"{}")
    lanes: int = 1
    preload: bool = True
    files: tuple[str, ...] = ()
    hooks: str | None = None
    privileges: Privileges = Privileges()
    request_timeout_seconds: float | None = None
    grace_seconds: float = 30.0
    wear: Wear = Wear()
    is_configured: bool = False
    reads_obituaries: bool = False
    has_requests: bool = True
