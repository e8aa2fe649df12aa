"""The engine's command lines, and the environment that its client has. Pure.

What Podman and Docker understand alike is used, so nothing here asks which of them it is.
"""

import math
from collections.abc import Iterable, Mapping

from sengu.container.identity import Identity
from sengu.container.order import Order

# What --env has given values, as JSON: so they are in nobody's arguments (config.container).
GIVEN = "SENGU_CONTAINER_ENV"
# With its runner's pid in it, the server knows whose a container is that listens (passage.group).
RUNNER = "SENGU_RUNNER"
_CONTRACT = ("SENGU_SERVICE", "SENGU_GENERATION", "SENGU_SLOT", RUNNER)
# The engine would take these for its own: Podman passes on listeners and its manager by itself.
_NOT_FOR_CLIENT = frozenset(
    {
        GIVEN,
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "SENGU_LIFELINE_FD",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
_NETWORK = ("--net", "--network")


def run_words(order: Order, identity: Identity, passed: Iterable[str], env_file: str) -> list[str]:
    """After the engine's own words. `passed` are names of variables, `env_file` has others.

    The image is never pulled here: a worker counts as started while that would go on.
    """
    words = ["run", "--pull=never", "--sig-proxy=false", "--name", identity.name]
    for label in identity.labels:
        words += ["--label", label]
    for variable in passed:
        words += ["--env", variable]
    words += ["--env-file", env_file]
    words += ["--stop-signal", str(order.stop_signals[0])]
    words += ["--stop-timeout", str(math.ceil(order.grace_seconds))]
    if not any(option.partition("=")[0] in _NETWORK for option in order.options):
        words.append("--net=host")
    return [*words, *order.options, order.image, *order.args]


def passed_names(order: Order, in_env_dir: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Which variables of ours the container gets, in order and each once."""
    names = dict.fromkeys((*_CONTRACT, *in_env_dir, *order.names))
    return [name for name in names if name in environ]


def client_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _NOT_FOR_CLIENT}


def env_file_text(given: Mapping[str, str]) -> str:
    """A line for each; none of the values has a line break in it (config checks)."""
    return "".join(f"{name}={value}\n" for name, value in given.items())
