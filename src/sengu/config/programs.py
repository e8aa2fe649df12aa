"""Whether programs can be executed: the service's command, and those that are given as a text.

Looks at files, starts nothing. Imported by config; the server uses `split_log_command`.
"""

import os
import re
import shlex

from sengu.errors import UsageError

_SHELL_SIGNS = frozenset("|&;<>()$`*?[]{}\n")
_SHELL_SIGNS_BEFORE_WORDS = frozenset("~#")
_SHELL_SIGNS_IN_DOUBLE_QUOTES = frozenset("$`")
_SHEBANG_BYTES = 256  # what the kernel reads of it (BINPRM_BUF_SIZE)


def check_program(program: str, search_path: str | None, directory: str) -> None:
    """Refuse a program that exec would refuse too. Raises UsageError.

    A name with a slash in it is relative to `directory`, any other is looked up in `search_path`
    (the worker's `PATH`), as execvp(3) does.
    """
    if not program:
        raise UsageError("the command's first word is empty; name the program to run")
    if "/" in program:
        _check_file(program, os.path.join(directory, program.removeprefix("./")))
        return
    folders = (os.defpath if search_path is None else search_path).split(":")
    found = [os.path.join(directory, folder, program) for folder in folders]
    existing = [path for path in found if os.path.isfile(path)]
    if any(_is_executable(path) for path in existing):
        return
    if existing:
        _check_file(program, existing[0])
    in_directory = os.path.isfile(os.path.join(directory, program))
    hint = f"write ./{program}" if in_directory else "check its name, or give its full path"
    raise UsageError(f"program {program!r} was not found in PATH; {hint}")


def split_log_command(log_file: str) -> list[str] | None:
    """The words of a `--log-file` that is `| command`, or None when it is a file's name.

    Raises UsageError.
    """
    stripped = log_file.lstrip()
    if not stripped.startswith("|"):
        return None
    return split_command(stripped[1:], f"--log-file {log_file!r}", before="| ")


def split_command(command: str, label: str, before: str = "") -> list[str]:
    """The words of a command that is given as a text; `before` is what it has to be written after.

    No shell is put between, so that no process sits there that nobody watches; what only a shell
    would understand is refused. Raises UsageError.
    """
    command = command.strip()
    sign = _find_shell_sign(command)
    if sign is not None:
        advice = f"if you want a shell, write: {before}sh -c {shlex.quote(command)}"
        raise UsageError(f"{label}: {sign!r} is for a shell, there is none; {advice}")
    try:
        words = shlex.split(command)
    except ValueError as problem:  # "No closing quotation"
        raise UsageError(f"{label}: {problem}; close the quotes") from None
    if not words:
        where = " after the bar" if before else ""
        raise UsageError(f"{label} has no command{where}; name one")
    return words


def check_command(
    words: list[str], flag: str, search_path: str | None, directory: str, before: str = ""
) -> None:
    """Refuse a command of `split_command` that cannot be executed. Raises UsageError."""
    try:
        check_program(words[0], search_path, directory)
    except UsageError as problem:
        shell = f"{before}sh -c {shlex.quote(shlex.join(words))}"
        advice = f"a shell's own word or variable? Then write: {shell}"
        raise UsageError(f"{flag}: {problem} ({advice})") from None


def _check_file(program: str, path: str) -> None:
    if not os.path.exists(path):
        raise UsageError(f"program {program!r} does not exist ({path}); check the path and --dir")
    if os.path.isdir(path):
        raise UsageError(f"program {program!r} is a directory; name a file in it")
    if not _is_executable(path):
        raise UsageError(f"program {program!r} is not executable; run: chmod +x {path}")
    _check_head(program, path)


def _check_head(program: str, path: str) -> None:
    """Refuse a script that the kernel cannot start (execve(2), "Interpreter scripts")."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_SHEBANG_BYTES)
    except OSError:  # executable but not readable: the kernel can run it all the same
        return
    match = re.match(rb"#![ \t]*(/[^ \t\r\n]*\r?)", head)
    if match and not os.path.exists(os.fsdecode(match[1])):
        raise UsageError(
            f"program {program!r} wants the interpreter {os.fsdecode(match[1])!r}, which does "
            "not exist; correct its first line"
        )
    # A binary of any format has a NUL in its head; text without #! would need a shell to run it.
    if not head.startswith(b"#!") and b"\0" not in head:
        raise UsageError(
            f"program {program!r} is a script without a #! line; "
            "make its first line #!/bin/sh or what it is written in"
        )


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK, effective_ids=True)


def _find_shell_sign(command: str) -> str | None:
    """The first sign outside quotes that means something to a shell and nothing to us."""
    quote = ""
    previous = " "
    for sign in command:
        if previous == "\\" and quote != "'":
            previous = ""  # escaped, and it escapes nothing itself
            continue
        if quote and sign == quote:
            quote = ""
        elif quote == '"' and sign in _SHELL_SIGNS_IN_DOUBLE_QUOTES:
            return sign
        elif not quote and sign in "'\"":
            quote = sign
        elif not quote and _means_something(sign, previous):
            return sign
        previous = sign
    return None


def _means_something(sign: str, previous: str) -> bool:
    return sign in _SHELL_SIGNS or (sign in _SHELL_SIGNS_BEFORE_WORDS and previous.isspace())
