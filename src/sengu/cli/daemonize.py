"""`--daemonize`: the server goes into the background, its first outcome comes back.

Imported by `cli.become`.
"""

import contextlib
import os
import select
import sys
from typing import NoReturn

import click
import msgspec

from sengu.cli.become import become_supervisor
from sengu.cli.exits import Exit
from sengu.cli.text import quote_last_words, say
from sengu.cli.waiting import waiting_for
from sengu.config.boot import Report
from sengu.config.launch import Launch
from sengu.control.deadline import Deadline
from sengu.errors import SenguError

_PATIENCE_SECONDS = 3.0


def run_in_background(launch: Launch) -> int:
    """Start the server as a daemon; return the exit code of its first generation's start.

    fork, setsid, fork: the grandchild leads no session, so that no terminal can become its own.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _detach(launch, writer)
    os.close(writer)
    os.waitpid(child, 0)
    name = launch.boot.service.name
    with waiting_for(f"{name!r} goes on starting; see sengu status {name}", Deadline(None)):
        report = _await_report(reader, launch)
    if report.error:
        reason, _, last_words = report.error.partition("\n")
        click.echo(f"sengu: error: {reason}{quote_last_words(last_words)}", err=True)
    return report.exit_code


def _detach(launch: Launch, writer: int) -> NoReturn:
    """In the child: leave the terminal and become the supervisor. Never returns."""
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(Exit.OK)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0, inheritable=True)
        become_supervisor(launch, writer)
    except BaseException as problem:  # the parent's code must not run twice
        code = problem.exit_code if isinstance(problem, SenguError) else Exit.FAILED
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(writer, msgspec.json.encode(Report(code, str(problem))))
    finally:
        os._exit(Exit.FAILED)


def _await_report(reader: int, launch: Launch) -> Report:
    if not select.select([reader], [], [], _PATIENCE_SECONDS)[0]:
        say("waiting for the first generation to become ready")
    with open(reader, "rb") as stream:
        data = stream.read()
    if not data:
        raise SenguError(
            "the server ended without saying why; look at the end of its log, "
            f"{launch.boot.files.log}"
        )
    return msgspec.json.decode(data.splitlines()[0], type=Report)  # each server says the same
