"""Becomes the user that the application is to run as. Imported by `forkserver.main`."""

import os
import signal

from sengu.model.application import Privileges
from sengu.posix import prctl
from sengu.worker.engine import LoadError


def drop(privileges: Privileges) -> None:
    """Change umask, groups and user, in this order: the last takes away the right to the others.

    Raises LoadError.
    """
    if privileges.umask is not None:
        os.umask(privileges.umask)
    try:
        if privileges.gid is not None:
            os.setgroups(privileges.groups)
            os.setresgid(privileges.gid, privileges.gid, privileges.gid)
        if privileges.uid is not None:
            os.setresuid(privileges.uid, privileges.uid, privileges.uid)
    except OSError as error:
        raise LoadError(
            f"cannot become {privileges.user or privileges.uid}: {error.strerror}; "
            "start sengu as root, or without --user and --group"
        ) from error
    # The kernel forgets it with such a change (PR_SET_PDEATHSIG in prctl(2)).
    prctl.set_parent_death_signal(signal.SIGKILL)
