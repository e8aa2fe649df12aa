"""The one family of exceptions that sengu raises on purpose.

Every message gives the fact, the value and the next step, because it is printed as it is.
Only entry points (cli, server's main) turn one into an exit code.
"""


class SenguError(Exception):
    """Something a user can act on. `exit_code` is what the command exits with."""

    exit_code = 1


class UsageError(SenguError):
    """The request itself is wrong: nothing was bound, started or changed."""

    exit_code = 2


class NotRunningError(SenguError):
    """There is no instance to talk to."""

    exit_code = 3


def describe_error(error: Exception) -> str:
    """What the system says, without its number; or what was said of a bad value."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
