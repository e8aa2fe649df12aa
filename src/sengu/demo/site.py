"""Where the demonstration's program lives: its releases, and `current`, which is one of them.

The way many sites deploy: a release is put beside the others and a link is set anew, in one step,
so that a worker that starts at any moment finds the one or the other, whole. Used by `story`.
"""

import os
import shutil
from pathlib import Path

from sengu.errors import SenguError

SERVER = "server.py"
CURRENT = "current"
_VERSION = "VERSION"
_NEW_LINK = "current.new"
_BROKEN_LINE = "import a_module_that_was_forgotten\n"


def find_program() -> Path:
    """The example program: of the checkout when this is one, otherwise the copy in the wheel."""
    package = Path(__file__).parent
    places = (package.parents[2] / "examples" / "hello", package / "hello")
    for place in places:
        if (place / SERVER).is_file():
            return place / SERVER
    raise SenguError(
        f"the example program is in none of {', '.join(map(str, places))}; install sengu anew"
    )


class Site:
    """Releases of `program` under `directory`."""

    def __init__(self, directory: Path, program: Path) -> None:
        self.directory = directory
        self._program = program

    def build(self, version: str, broken: bool = False) -> None:
        """Make a release; a broken one fails when it is started, before it says anything."""
        release = self.directory / "releases" / version
        release.mkdir(parents=True)
        (release / _VERSION).write_text(version + "\n")
        if broken:
            (release / SERVER).write_text(_BROKEN_LINE + self._program.read_text())
        else:
            shutil.copy(self._program, release / SERVER)

    def switch(self, version: str) -> None:
        """Make `current` that release."""
        new = self.directory / _NEW_LINK
        new.symlink_to(Path("releases", version))
        os.replace(new, self.directory / CURRENT)
