"""Resource limits (getrlimit(2)). Imported by the server."""

import resource


def raise_file_limit() -> int:
    """Allow ourselves as many descriptors as we may have; returns how many it were before.

    A worker costs us several. Whom we execute is given the old limit back (`set_file_limit`):
    there are programs that look at each number up to it, and select(2) knows 1024 of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def set_file_limit(soft: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))
