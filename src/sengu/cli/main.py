"""The command `sengu`: finds the verb, runs it, turns what goes wrong into one line and a code.

A verb's module is imported when the verb is called and not before. Imported by `sengu.__main__`
and named as the console script.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from sengu import __version__
from sengu.cli.exits import Exit
from sengu.errors import SenguError, UsageError

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports a reader that went away

# Each verb is `command` in the module of its name. The words are the overview's.
_VERBS = {
    "serve": "Serve a Python web application.",
    "work": "Run a worker class.",
    "consume": "Run the queue consumers of a module, on RabbitMQ.",
    "start": "Run a command with its listeners, and keep it running.",
    "reload": "Deploy a new generation and wait for the outcome.",
    "status": "Show generations, workers and listeners of an instance.",
    "scale": "Change the number of workers.",
    "configure": "Have the configuration of worker classes read anew.",
    "upgrade": "Go on as the version of sengu that is installed now.",
    "stop": "Stop an instance and wait until it is gone.",
    "events": "Show what has happened, or follow it.",
    "logs": "Show what was written to the log file, or follow it.",
    "dump": "Show what all threads and tasks are at, and memory.",
    "publish": "Publish messages to a queue, or to an exchange.",
    "queues": "Show how full consumers' queues are, and who consumes them.",
    "dead": "List, show, send back or throw away dead messages.",
    "ls": "List all instances of this user.",
    "doctor": "Show what this machine allows, and what to change.",
    "demo": "Deploy a small web server under load, and see what it costs.",
    "completion": "Print the completion script for a shell.",
}


class _ReaderGoneError(Exception):
    """Nobody reads our output any more. click would take a BrokenPipeError for itself, and exit
    with 1, which is a failure's code."""


class _Verbs(click.Group):
    """Loads verbs lazily. The overview is made from the table, without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = importlib.import_module(f"sengu.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in Exit])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as problem:
            raise _ReaderGoneError from problem

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            raise UsageError(_unknown_verb(args[0]))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB [ARGS]...",
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, message="sengu %(version)s")
@click.pass_context
def sengu(ctx: click.Context) -> None:
    """Run a server as one or many processes, and replace them without anyone noticing.

    \b
      sengu serve myapp:app
      sengu start --port 8080 --workers 4 -- ./my-server
      sengu reload

    The first line serves a Python web application. The second one listens on port 8080 and runs
    four workers of any program, which inherit the socket. The third one, given later in the same
    directory, starts new workers beside the old ones, and stops the old ones when the new ones
    are ready. If they do not become ready, the old ones go on.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; what went wrong is told in one line."""
    try:
        code = sengu.main(list(args), prog_name="sengu", standalone_mode=False)
        sys.stdout.flush()  # here, where a reader that went away can be dealt with
    except click.UsageError as problem:
        return _fail(_usage_problem(problem, args), Exit.USAGE)
    except click.ClickException as problem:
        return _fail(problem.format_message(), problem.exit_code)
    except SenguError as problem:
        return _fail(str(problem), problem.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except (_ReaderGoneError, BrokenPipeError):
        # The interpreter flushes once more when it exits, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code if isinstance(code, int) else Exit.OK


def _fail(message: str, code: int) -> int:
    click.echo(f"sengu: error: {message}", err=True)
    return code


def _usage_problem(problem: click.UsageError, args: Sequence[str]) -> str:
    verb = f" {args[0]}" if args and args[0] in _VERBS else ""
    where = problem.ctx.command_path if problem.ctx else f"sengu{verb}"
    if isinstance(problem, click.NoSuchOption):
        guess = _guess(problem.possibilities or ())
        return f"there is no option {problem.option_name}; {guess or f'see {where} --help'}"
    message = " ".join(problem.format_message().split()).rstrip(".")
    return f"{message[:1].lower()}{message[1:]}; see {where} --help"


def _unknown_verb(word: str) -> str:
    from difflib import get_close_matches  # slow to import, and needed for an error only

    if ":" in word:
        advice = f"to serve an application: sengu serve {word}"
    elif "/" in word:
        advice = f"to run a program: sengu start -- {word}"
    else:
        advice = _guess(get_close_matches(word, _VERBS, n=1)) or "see sengu --help"
    return f"there is no verb {word!r}; {advice}"


def _guess(close: Sequence[str]) -> str:
    return f"did you mean {' or '.join(close)}?" if close else ""
