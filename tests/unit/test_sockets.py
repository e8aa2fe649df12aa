"""Listeners as a set: what cannot be had together is refused."""

import resource

import pytest

from sengu.config.sockets import check_listeners
from sengu.errors import UsageError
from sengu.model.address import parse_port


def test_a_descriptor_that_leaves_no_room_to_place_it_is_refused() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    check_listeners({"--port": [parse_port(f"8080={limit - 100}")]})
    with pytest.raises(UsageError, match="take a lower one or raise ulimit -n"):
        check_listeners({"--port": [parse_port(f"8080={limit - 1}")]})
