"""Whom the workers become: `--user`, `--group` and `--umask`, resolved to numbers.

Looks accounts up, changes nothing. Imported by `config.web`.
"""

import grp
import os
import pwd
from collections.abc import Iterable

from sengu.config.setting import Values
from sengu.config.settings import application
from sengu.errors import UsageError
from sengu.model.application import Privileges


def resolve_privileges(values: Values) -> Privileges:
    """What the options ask for; nothing when there are none. Raises UsageError."""
    user, group, umask = (
        values[application.USER],
        values[application.GROUP],
        values[application.UMASK],
    )
    uid = None if user is None else _find_uid(user)
    gid = None if group is None else _find_gid(group)
    account = None if uid is None else _account(uid)
    if account is not None and gid is None:
        gid = account.pw_gid
    if uid is None and gid is None:
        return Privileges(umask=umask)
    if gid is None:
        raise UsageError(f"--user {user}: no account has that number, and so no group; add --group")
    if os.geteuid() != 0:
        _check_nothing_changes("--group" if user is None else "--user", uid, gid)
        return Privileges(umask=umask)
    name = "" if account is None else account.pw_name
    groups = tuple(os.getgrouplist(name, gid)) if name else (gid,)
    return Privileges(uid, gid, groups, umask, name or user or "")


def _find_uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        names = (account.pw_name for account in pwd.getpwall())
        hint = _did_you_mean(user, names) or "`getent passwd` lists those there are"
        raise UsageError(f"--user {user!r}: there is no such user; {hint}") from None


def _find_gid(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        names = (entry.gr_name for entry in grp.getgrall())
        hint = _did_you_mean(group, names) or "`getent group` lists those there are"
        raise UsageError(f"--group {group!r}: there is no such group; {hint}") from None


def _account(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:  # a number that has no name, as is usual in containers
        return None


def _check_nothing_changes(flag: str, uid: int | None, gid: int) -> None:
    """Who is not root can only remain who they are."""
    ours = os.geteuid()
    if uid not in (None, ours) or gid != os.getegid():
        raise UsageError(
            f"{flag} needs root, this is uid {ours}; start sengu as root, or leave {flag} out"
        )


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # slow to import, and needed for an error only

    close = get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}?" if close else ""
