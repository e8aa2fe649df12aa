"""A machine made of what a test writes down: files, answers of commands, refusals of trials.

It is a healthy one, Linux 6.1 with root, until a test takes something away.
"""

from sengu.doctor.machine import Ran, Refusal, Trial

ALL_CAPABILITIES = "000001ffffffffff"
_LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             {nproc}               63434                processes
Max open files            {descriptors}   files
Max locked memory         {memlock}              {memlock}              bytes
"""


def status(**fields: str) -> str:
    """The text of /proc/self/status, of which the fields given differ from the usual."""
    usual = {
        "Name": "sengu",
        "Uid": "0\t0\t0\t0",
        "CapEff": ALL_CAPABILITIES,
        "NoNewPrivs": "0",
        "Seccomp": "0",
        "Seccomp_filters": "0",
    }
    return "".join(f"{name}:\t{value}\n" for name, value in {**usual, **fields}.items())


def limits(
    nproc: str = "63434", descriptors: str = "1024  524288", memlock: str = "8388608"
) -> str:
    """The text of /proc/self/limits."""
    return _LIMITS.format(nproc=nproc, descriptors=descriptors, memlock=memlock)


UNPRIVILEGED = status(Uid="65534\t65534\t65534\t65534", CapEff="0000000000000000")


class FakeMachine:
    """A `Machine`. A file that is an OSError raises it; one that is missing does not exist."""

    def __init__(self) -> None:
        self.files: dict[str, str | OSError] = {
            "/proc/sys/kernel/osrelease": "6.1.0-44-amd64\n",
            "/proc/sys/kernel/yama/ptrace_scope": "1\n",
            "/proc/sys/net/ipv4/tcp_migrate_req": "1\n",
            "/proc/sys/net/core/somaxconn": "4096\n",
            "/proc/self/status": status(),
            "/proc/self/limits": limits(),
            "/run/systemd/system": "",
        }
        self.writable: set[str] = set()
        self.refused: dict[Trial, Refusal] = {}
        self.tried: list[Trial] = []
        self.commands: dict[str, Ran] = {
            "systemctl": Ran(0, "systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT\n"),
            "podman": Ran(0, "podman version 4.3.1\n"),
            "docker": Ran(0, "28.2.2\n"),
        }
        self.variables: dict[str, str] = {}
        self.no_cgroups: str | None = None

    def read(self, path: str) -> str:
        found = self.files.get(path, FileNotFoundError(2, "No such file or directory", path))
        if isinstance(found, OSError):
            raise found
        return found

    def exists(self, path: str) -> bool:
        return path in self.files

    def may_write(self, path: str) -> bool:
        return path in self.writable

    def attempt(self, trial: Trial) -> Refusal | None:
        self.tried.append(trial)
        return self.refused.get(trial)

    def run(self, *command: str) -> Ran | None:
        return self.commands.get(command[0])

    def variable(self, name: str) -> str | None:
        return self.variables.get(name)

    def cgroups_refusal(self) -> str | None:
        return self.no_cgroups
