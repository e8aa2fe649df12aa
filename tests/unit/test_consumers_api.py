"""What users write, and how it is found in their modules."""

import functools
import re
from types import ModuleType
from typing import Any

import flask
import pytest

import sengu.consumers
from sengu.consumers import Binding, Consumer, Message, consumer
from sengu.consumers.api import Found, found_in, is_coroutine
from sengu.consumers.modules import consumers_of, select
from sengu.errors import UsageError


def module(**names: object) -> ModuleType:
    made = ModuleType("jobs")
    vars(made).update(names)
    return made


def found(thing: object) -> Found:
    one = found_in(thing)
    assert one is not None
    return one


@consumer("downloads", prefetch=20, threads=5, arguments={"x-max-length": 9})
def handle(message: Message) -> Any:
    return message.text()


class Uploads(Consumer):
    queue = "uploads"
    exchange = "shop"
    exchange_type = "topic"
    routing_keys = "new.#"
    backoff = (1, 2)
    retries = 3

    async def handle(self, message: Message) -> None: ...


def test_a_function_stays_as_it_is_and_handles() -> None:
    assert handle(Message(body=b"x")) == "x"
    one = found(handle)
    assert (one.spec.name, one.spec.queue, one.spec.threads) == ("handle", "downloads", 5)
    assert one.spec.retrying.delays == (10.0, 20.0, 40.0, 80.0, 160.0)
    made = one.make()
    assert made.handle(Message(body=b"x")) == "x"
    assert not is_coroutine(made)
    assert made.setup() is None


def test_a_class_is_made_for_each_process() -> None:
    one = found(Uploads)
    assert one.spec.bindings == (Binding("shop", ("new.#",), "topic"),)
    assert one.spec.retrying.delays == (1.0, 2.0, 2.0)
    made = one.make()
    assert isinstance(made, Uploads)
    assert made is not one.make()
    assert is_coroutine(made)


def test_options_are_inherited_and_a_class_without_queue_is_no_consumer() -> None:
    class Patient(Consumer):
        retries = 50

    class Mails(Patient):
        queue = "mails"

        def handle(self, message: Message) -> None: ...

    assert found_in(Patient) is None
    assert found(Mails).spec.retrying.retries == 50
    assert found_in(Consumer) is None


def test_what_is_handled_once_at_most_is_never_retried() -> None:
    spec = found(consumer("a", ack=False)(lambda message: None)).spec
    assert not spec.ack_late
    assert spec.retrying.retries == 0


def test_a_wrapped_function_is_the_consumer() -> None:
    @functools.wraps(handle)
    def louder(message: Message) -> str:
        return str(handle(message)).upper()

    assert found(louder).make().handle(Message(body=b"x")) == "X"
    assert [one.spec for one in consumers_of(module(a=louder, b=handle))] == [found(handle).spec]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"prefech": 1}, "@consumer has no option prefech; there are queue, exchange,"),
        ({"prefetch": 0}, "consumer handle: prefetch=0 is not from 1 to 65535"),
        ({"routing_keys": "a"}, "routing_keys and bind_arguments are of an exchange"),
        ({"retries": -1}, "retries=-1 is below 0"),
        ({"ack": False, "retries": -1}, "retries=-1 is below 0"),
        ({"backoff": "cubic"}, "backoff='cubic' is none"),
    ],
)
def test_options_that_cannot_be_are_told_of(options: dict[str, Any], problem: str) -> None:
    def handle(message: Message) -> None: ...

    with pytest.raises((UsageError, TypeError), match=re.escape(problem)):
        consumer("downloads", **options)(handle)


def test_a_decorator_without_its_queue_is_told_of() -> None:
    with pytest.raises(TypeError, match="@consumer needs the name of a queue"):
        consumer(lambda message: None)  # type: ignore[arg-type]


def test_a_class_is_not_decorated() -> None:
    with pytest.raises(TypeError, match="Jobs is a class; derive it from Consumer"):
        consumer("jobs")(type("Jobs", (), {}))


def test_a_function_consumes_one_queue() -> None:
    with pytest.raises(UsageError, match="handle is a consumer already"):
        consumer("others")(handle)


def test_a_class_without_handle_is_told_of_when_it_is_made() -> None:
    with pytest.raises(UsageError, match=re.escape("Jobs has no handle(self, message)")):
        type("Jobs", (Consumer,), {"queue": "jobs"})


def test_all_consumers_of_a_module_are_found_once_and_nothing_else() -> None:
    jobs = module(
        Consumer=Consumer, consumer=consumer, a=handle, request=flask.request, B=Uploads, c=handle
    )
    assert [one.spec.queue for one in consumers_of(jobs)] == ["downloads", "uploads"]


def test_a_module_without_consumers_is_told_of() -> None:
    with pytest.raises(UsageError, match="jobs has no consumer; decorate a function with"):
        consumers_of(module(Consumer=Consumer))


def test_two_consumers_of_one_queue_are_told_of() -> None:
    @consumer("downloads")
    def other(message: Message) -> None: ...

    problem = "jobs: handle and other both consume queue downloads; give one of them another"
    with pytest.raises(UsageError, match=problem):
        consumers_of(module(a=handle, b=other))


@pytest.mark.parametrize(
    ("names", "queues"),
    [
        ([], ["downloads", "uploads"]),
        (["uploads"], ["uploads"]),
        (["Uploads", "uploads"], ["uploads"]),
        (["uploads", "handle"], ["downloads", "uploads"]),
    ],
)
def test_consumers_are_selected_by_their_names_or_queues(
    names: list[str], queues: list[str]
) -> None:
    both = consumers_of(module(a=handle, b=Uploads))
    assert [one.spec.queue for one in select(both, names)] == queues


def test_functions_of_one_name_are_selected_together() -> None:
    others = [consumer(queue)(_named_handle()) for queue in ("a", "b")]
    both = [found(one) for one in others]
    assert select(both, ["handle"]) == tuple(both)
    assert select(both, ["b"]) == (both[1],)


def test_an_unknown_name_is_answered_with_one_like_it() -> None:
    both = consumers_of(module(a=handle, b=Uploads))
    with pytest.raises(
        UsageError, match=re.escape("no consumer download; did you mean downloads?")
    ):
        select(both, ["download"])
    problem = "there is no consumer xyz; there are Uploads, downloads, handle, uploads"
    with pytest.raises(UsageError, match=problem):
        select(both, ["uploads", "xyz"])


def test_all_that_is_named_is_there() -> None:
    for name in sengu.consumers.__all__:
        assert getattr(sengu.consumers, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Consume'"):
        _ = sengu.consumers.Consume


def _named_handle() -> Any:
    def handle(message: Message) -> None: ...

    return handle
