"""A container from the checkout's own Python: its files copied into a directory, run by Podman.

An image of a registry would be the real thing; it cannot be had without a network.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO

from tests.support import give_up, requires

SITE = "/usr/lib/site"
_ACCOUNTS = "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n"
_GROUPS = "root:x:0:\nwww-data:x:33:\n"
_PROGRAM = """#!{python}
from sengu.cli.main import main

main()
"""
_FOR_TERMINALS = "rich"
_NOT_NEEDED = shutil.ignore_patterns(
    "__pycache__", "site-packages", "test", "idlelib", "*tkinter*", "ensurepip", "config-*", "*.a"
)


def make_root(root: Path) -> None:
    """Python, sengu and what it needs, as an image of `python:slim` after `pip install`."""
    for directory in ("dev", "proc", "sys", "etc", "tmp", "usr/bin", f"{SITE[1:]}"):
        (root / directory).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(_ACCOUNTS)
    (root / "etc/group").write_text(_GROUPS)
    python = os.path.realpath(sys.executable)
    stdlib = Path(os.path.realpath(sysconfig.get_path("stdlib")))
    shutil.copytree(stdlib, _below(root, stdlib), ignore=_NOT_NEEDED)
    objects = [Path(python), *_below(root, stdlib).glob("lib-dynload/*.so")]
    _put(root, Path(python))
    for name in _needed("sengu", {_FOR_TERMINALS}) - {_FOR_TERMINALS}:
        objects += _install(metadata.distribution(name), root / SITE[1:])
    linked = subprocess.run(["ldd", *objects], capture_output=True, text=True, check=False).stdout
    for library in set(re.findall(r"(/\S+) \(0x", linked)):
        _put(root, Path(library))
    program = root / "usr/bin/sengu"
    program.write_text(_PROGRAM.format(python=python))
    program.chmod(0o755)


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _put(root: Path, path: Path) -> None:
    target = _below(root, path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _needed(name: str, seen: set[str]) -> set[str]:
    """The distribution and all that it requires."""
    if name not in seen:
        seen.add(name)
        for requirement in metadata.requires(name) or ():
            if "extra ==" not in requirement:
                _needed(re.split(r"[^\w.-]", requirement)[0], seen)
    return seen


def _install(distribution: metadata.Distribution, site: Path) -> list[Path]:
    """Copy its modules; returns its shared objects."""
    found = distribution.files or ()
    files = [file for file in found if ".." not in file.parts and file.suffix != ".pyc"]
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(str(distribution.locate_file(file))), site / file)
    for link in site.glob("_editable*.pth"):  # in a checkout there is only a way to it
        (package,) = Path(link.read_text().strip()).iterdir()
        shutil.copytree(package, site / package.name, ignore=_NOT_NEEDED, dirs_exist_ok=True)
        link.unlink()
    return [Path(str(distribution.locate_file(file))) for file in files if file.suffix == ".so"]


def make_small_root(root: Path) -> None:
    """A shell and what it takes to sleep: all in one static program."""
    (root / "bin").mkdir(parents=True)
    shutil.copy(requires("busybox"), root / "bin/busybox")
    for name in ("sh", "sleep", "echo"):
        (root / "bin" / name).symlink_to("busybox")


class Podman:
    """Podman with a storage of its own, which ends with the test. `engine` are its words."""

    # Those of a container; they could not be raised to the engine's defaults everywhere.
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")

    def __init__(self, directory: Path) -> None:
        self.engine = (
            *(requires("podman"), "--root", f"{directory}/storage"),
            *("--runroot", f"{directory}/run", "--storage-driver", "vfs"),
            *("--runtime", requires("runc"), "--cgroup-manager", "cgroupfs"),
        )

    def __call__(self, *args: str, stdin: IO[bytes] | None = None) -> str:
        """Run it to its end; stdout and stderr."""
        done = subprocess.run(
            [*self.engine, *args],
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def make_image(self, root: Path, instructions: list[str]) -> None:
        """An image `web` of the directory, with what a Containerfile says at its end."""
        changes = [word for line in instructions for word in ("--change", line)]
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
            self("import", *changes, "-", "web", stdin=archive.stdout)
        assert archive.returncode == 0

    @contextmanager
    def running(self, *args: str) -> Iterator[str]:
        """Run a container of the image `web`, with a name that is given."""
        name = f"sengu-{os.getpid()}"
        try:
            self("run", "--detach", "--name", name, "--net", "host", *self.limits, "web", *args)
        except AssertionError as problem:
            _give_up_if_impossible(problem)
            raise
        try:
            yield name
        finally:
            self("rm", "--force", "--time", "0", name)

    def try_out(self) -> None:
        """Run a container of the image `web` to its end, or give the test up."""
        try:
            self("run", "--rm", "--net", "host", *self.limits, "web", "/bin/echo")
        except AssertionError as problem:
            _give_up_if_impossible(problem)
            raise

    def names(self, state: str = "") -> list[str]:
        """Those of all containers, or of those in that state such as `running`."""
        chosen = ("--filter", f"status={state}") if state else ()
        return sorted(self("ps", "--all", "--format", "{{.Names}}", *chosen).split())

    def exit_code(self, name: str) -> int:
        return int(json.loads(self("inspect", name))[0]["State"]["ExitCode"])


def _give_up_if_impossible(problem: AssertionError) -> None:
    if re.search(r"namespace|cgroup|[Oo]peration not permitted", str(problem)):
        give_up(f"containers cannot be run here: {problem}")
