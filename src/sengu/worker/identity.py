"""Who a worker is: what hooks are given and titles show."""

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """`pid` is 0 as long as there is no process."""

    service: str
    generation: int
    slot: int
    pid: int = 0
