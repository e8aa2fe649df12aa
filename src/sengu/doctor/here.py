"""The machine that we run on: what checks look at, for real. Made by cli."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from sengu.doctor.apart import attempt
from sengu.doctor.machine import Ran, Refusal, Trial
from sengu.doctor.trials import TRIALS
from sengu.posix.cgroups import Cgroups

_PATIENCE_SECONDS = 5.0


class Here:
    """A `Machine`. Whatever is tried or run is ended after `patience_seconds`."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def may_write(self, path: str) -> bool:
        return os.access(path, os.W_OK, effective_ids=True)

    def attempt(self, trial: Trial) -> Refusal | None:
        return attempt(TRIALS[trial], self._patience_seconds)

    def run(self, *command: str) -> Ran | None:
        if shutil.which(command[0]) is None:
            return None
        # Podman makes directories there even if it is only asked for its version.
        with tempfile.TemporaryDirectory(prefix="sengu-doctor-") as directory:
            return self._run({"XDG_RUNTIME_DIR": directory, "TMPDIR": directory}, command)

    def _run(self, variables: dict[str, str], command: Sequence[str]) -> Ran:
        try:
            ended = subprocess.run(
                command,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._patience_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:  # it has been killed
            return Ran(None, "")
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def cgroups_refusal(self) -> str | None:
        found = Cgroups.find("doctor", os.getpid())  # looks only
        return found if isinstance(found, str) else None
