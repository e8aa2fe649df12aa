"""Whether the library that speaks AMQP is there. Imported by whatever is about to import it."""

import importlib.util

from sengu.errors import SenguError


def check_library() -> None:
    """Raises SenguError."""
    if importlib.util.find_spec("pika") is None:
        raise SenguError(
            "queues need the library pika, which is not installed: pip install 'sengu[amqp]'"
        )
