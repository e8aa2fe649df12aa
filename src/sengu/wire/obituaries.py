"""Obituaries: how workers have ended that had something in hand. Pure.

The server writes them, workers read them, who may get in hand what another one died with. Imported
by both.
"""

from collections.abc import Iterable, Sequence

import msgspec

_MOST = 32
_MAX_WORDS_BYTES = 4096


class Obituary(msgspec.Struct, frozen=True):
    """Of one worker. `in_hand` are the requests on its lines of the scoreboard, as these show them.

    `how` is `signal SEGV`, `exit status 3`, or `killed: …` when that was our doing. `last_words`
    are the end of its stderr, `at` is when its end was seen (UNIX time).
    """

    worker: int
    in_hand: tuple[str, ...]
    how: str
    last_words: str = ""
    at: float = 0.0


def add(obituaries: Sequence[Obituary], latest: Obituary) -> tuple[Obituary, ...]:
    """With `latest`, and without those that are too old for that.

    A worker dies once: a server that sees it again, as its predecessor was killed before that was
    on record, has no last words of it any more.
    """
    if any(one.worker == latest.worker for one in obituaries):
        return tuple(obituaries)
    words = latest.last_words.encode()[-_MAX_WORDS_BYTES:].decode(errors="ignore")
    return (*obituaries, msgspec.structs.replace(latest, last_words=words))[-_MOST:]


def latest_with(obituaries: Iterable[Obituary], request: str) -> Obituary | None:
    """The last one of a worker that had that in hand."""
    found = None
    for one in obituaries:
        if request in one.in_hand:
            found = one
    return found


def encode(obituaries: Sequence[Obituary]) -> bytes:
    return msgspec.json.encode(obituaries)


def decode(data: bytes) -> tuple[Obituary, ...]:
    """None where nothing was written yet, or only another version knows what."""
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return ()


_decode = msgspec.json.Decoder(tuple[Obituary, ...]).decode
