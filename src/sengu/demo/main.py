"""`sengu demo` from its beginning to its end: makes what the story needs, and cleans up after it.

Called by `cli.demo`.
"""

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from sengu.cli.exits import Exit
from sengu.cli.text import say
from sengu.demo.ledger import Ledger
from sengu.demo.picture_svg import draw_svg
from sengu.demo.picture_terminal import draw_terminal
from sengu.demo.report import make_chart, tell_verdict
from sengu.demo.screen import Screen
from sengu.demo.site import Site, find_program
from sengu.demo.story import FULL, QUICK, STEPS, Cast, Stage, Story
from sengu.demo.verdict import judge
from sengu.errors import UsageError
from sengu.posix import clock
from sengu.posix.loop import Loop

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(*, quick: bool, svg: str, cast: Cast) -> int:
    """Play the story, tell the verdict and draw its picture into the file `svg`.

    Raises SenguError when the story cannot be told to its end. Nothing is left of it in any case
    but the picture.
    """
    picture = _check_picture(svg)
    _make_printable()
    console = Console(highlight=False)
    ledger = Ledger(clock.wall() - clock.monotonic())
    try:
        _play(console, ledger, cast, quick)
    except KeyboardInterrupt:
        say("interrupted; nothing of the demonstration is left")
        return Exit.INTERRUPTED
    verdict = judge(ledger)
    chart = make_chart(ledger, verdict, cast.words)
    console.print()
    for line in draw_terminal(chart, console.width):
        console.print(line, soft_wrap=True)
    console.print()
    for text in tell_verdict(ledger, verdict):
        console.print(text, soft_wrap=not console.is_terminal)
    picture.write_text(draw_svg(chart))
    console.print(f"the picture is in {picture}", markup=False, soft_wrap=True)
    return Exit.OK if verdict.is_good else Exit.FAILED


def _play(console: Console, ledger: Ledger, cast: Cast, quick: bool) -> None:
    with _interruptible(), ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sengu-demo-"))
        loop = Loop()
        stack.callback(loop.close)
        screen = Screen(console, loop, ledger, STEPS)
        site = Site(Path(directory), find_program())
        with screen.open():
            stage = Stage(loop, stack, site, ledger, screen)
            try:
                Story(stage, cast, QUICK if quick else FULL).play()
            finally:
                # Whoever is impatient now would leave behind what is being cleaned up.
                _ignore_ends()


@contextmanager
def _interruptible() -> Iterator[None]:
    """TERM and HUP end the demonstration as Ctrl-C does: in order. Afterwards all is as before."""
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number in _ENDS:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_ends() -> None:
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    _ignore_ends()
    raise KeyboardInterrupt


def _check_picture(path: str) -> Path:
    """Found out now, not when there is something to draw. Raises UsageError."""
    picture = Path(path)
    existed = picture.exists()
    try:
        with picture.open("a"):
            pass
        if not existed:
            picture.unlink()
    except OSError as problem:
        raise UsageError(
            f"cannot write --svg {path!r}: {problem.strerror}; name a file that can be written"
        ) from problem
    return picture


def _make_printable() -> None:
    """A picture with question marks is better than none, where the terminal knows ASCII only."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
