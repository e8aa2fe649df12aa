"""The journal: what one server wrote, the next one knows, wherever the first was killed."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec
import pytest

from sengu.control.api import PastDeploy, Record
from sengu.errors import SenguError
from sengu.model import events as ev
from sengu.model.observed import Observed, Outcome, Slot, Urging
from sengu.model.service import Pacing
from sengu.planner import initial, reduce
from sengu.planner.reduce import Fact
from sengu.server.chronicle import Chronicle
from sengu.server.journal import Entry, Journal, Snapshot
from sengu.server.narrate import narrate
from sengu.server.past import Past
from tests.unit.support_steps import BROKEN, Die, Next, Wait, hup, make_spec, scale, stop
from tests.unit.support_views import changes
from tests.unit.support_world import World

_SAMPLES: dict[object, Any] = {
    int: 3,
    str: "größer\0als\n'eine' Zeile",
    float: 1234.000000025,
    bool: True,
    Pacing: Pacing(2.5, None),
    Outcome: Outcome.ROLLED_BACK,
    tuple[Urging, ...]: (Urging(15, 12.5), Urging(3, 20.0)),
    Mapping[str, Any]: {"workers": 3, "log-level": "debug"},
    int | None: 3,
    tuple[str, ...]: ("workers", "log-level"),
}
_FACTS: tuple[type[Fact], ...] = get_args(Fact)


def sample(kind: type[Fact]) -> Fact:
    values: list[Any] = [_SAMPLES[field.type] for field in msgspec.structs.fields(kind)]
    return kind(*values)


def entry(worker: int) -> Entry:
    return Entry(ev.WorkerReady(worker, "said READY=1"), 10.0 + worker, 1.7e9 + worker)


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal.create()
    yield journal
    journal.close()


def write(journal: Journal, *entries: Entry) -> None:
    for one in entries:
        journal.write(one.fact, one.at, one.wall)


def write_raw(journal: Journal, value: object) -> None:
    data = msgspec.msgpack.encode(value)
    framed = len(data).to_bytes(4, "little") + data
    os.pwrite(journal.fd, framed, size(journal))


def size(journal: Journal) -> int:
    return os.fstat(journal.fd).st_size


# --- what is written is read ---


def test_a_journal_without_an_entry_tells_nothing(journal: Journal) -> None:
    assert list(journal.read()) == []


@pytest.mark.parametrize("kind", [kind for kind in _FACTS if kind is not ev.WorkerBeat])
def test_every_fact_is_read_as_it_was_written(journal: Journal, kind: type[Fact]) -> None:
    written = Entry(sample(kind), 1234.5, 1763759943.1)
    write(journal, written)
    assert list(Journal(journal.fd).read()) == [written]


def test_beats_are_not_written(journal: Journal) -> None:
    journal.write(ev.WorkerBeat(1), 1.0, 1.7e9)
    assert size(journal) == 0


def test_a_snapshot_is_read_as_it_was_written() -> None:
    world = World(make_spec())
    world.play(hup(), scale(3), hup(), Die(0))
    observed = msgspec.structs.replace(world.observed, slots={(2, 1): Slot(failures=3)})
    record = Record(7, 1.7e9, "worker_ready", "it is ready", {"worker": 3, "reason": "said so"})
    deploy = PastDeploy(2, Outcome.ABORTED, "exit status 1", 1.7e9)
    written = Snapshot(observed, (record,), 7, Past(1.6e9, deploy))
    journal = Journal.create(written)
    write(journal, entry(1))
    assert list(Journal(journal.fd).read()) == [written, entry(1)]
    journal.close()


def test_a_new_server_goes_on_where_the_last_one_stopped(journal: Journal) -> None:
    write(journal, entry(1))
    second = Journal(journal.fd)
    assert list(second.read()) == [entry(1)]
    write(second, entry(2))
    third = Journal(journal.fd)
    assert list(third.read()) == [entry(1), entry(2)]


def test_what_is_known_after_the_journal_was_read_is_what_was_known_before() -> None:
    world = World(make_spec())
    world.play(hup(), Wait(10), scale(4), Next(BROKEN, 3), hup(), Die(1), Wait(100), hup(), stop())
    journal, before, after = Journal.create(), Chronicle(), Chronicle()
    for number, change in enumerate(changes(world)):
        journal.write(change.fact, change.at, 1.7e9 + number)
        tell(before, change.fact, change.before, change.after, 1.7e9 + number)
    observed = initial(world.spec)
    for line in Journal(journal.fd).read():
        assert isinstance(line, Entry)
        known, observed = observed, reduce(world.spec, observed, line.fact, line.at)
        tell(after, line.fact, known, observed, line.wall)
    assert observed == world.observed
    assert (after.records, after.last_id) == (before.records, before.last_id)
    assert after.last_id > 30
    journal.close()


def tell(chronicle: Chronicle, fact: Fact, before: Observed, after: Observed, wall: float) -> None:
    text = narrate(fact, before, after)
    if text is not None:
        chronicle.write(fact, text, wall)


def test_a_chronicle_goes_on_with_the_numbers_of_the_one_before() -> None:
    old, new = Chronicle(), Chronicle()
    for number in range(1_500):
        old.write(ev.WorkerSaid(1, f"line {number}"), "it said something", 1.7e9 + number)
    new.restore(old.records, old.last_id)
    new.write(ev.WorkerSaid(1, "the next"), "it said something", 1.8e9)
    assert [record.id for record in new.since(1_498)] == [1_499, 1_500, 1_501]
    assert len(new.records) == 1_000


# --- its writer was killed ---


def test_an_entry_that_was_not_written_to_its_end_is_cut_off(journal: Journal) -> None:
    write(journal, entry(1))
    whole = size(journal)
    write(journal, entry(2))
    content = os.pread(journal.fd, size(journal), 0)
    for end in range(whole, len(content)):
        os.ftruncate(journal.fd, 0)
        os.pwrite(journal.fd, content[:end], 0)
        reader = Journal(journal.fd)
        assert list(reader.read()) == [entry(1)]
        assert size(journal) == whole
        write(reader, entry(3))
        assert list(Journal(journal.fd).read()) == [entry(1), entry(3)]


def test_who_goes_on_after_another_was_on_trial_drops_what_that_one_wrote(
    journal: Journal,
) -> None:
    write(journal, entry(1))
    tried = Journal(journal.fd)
    assert list(tried.read()) == [entry(1)]
    write(tried, entry(2))
    journal.cut()
    write(journal, entry(3))
    assert list(Journal(journal.fd).read()) == [entry(1), entry(3)]


# --- another version wrote it ---


def test_an_entry_that_this_version_does_not_know_is_passed_over_and_counted(
    journal: Journal,
) -> None:
    write(journal, entry(1))
    write_raw(journal, ["fact", {"type": "moon_landed", "by": "Neil"}, 1.0, 2.0])
    write_raw(journal, ["poem", "roses are red"])
    reader = Journal(journal.fd)
    write(reader, entry(2))
    assert list(reader.read()) == [entry(1), entry(2)]
    assert reader.unknown == 2


def test_fields_that_this_version_does_not_know_are_passed_over(journal: Journal) -> None:
    known = {"wanted": 2, "mood": 1}
    write_raw(journal, ["snapshot", known, [], 0, {"started_at": 1.6e9}, 0, "fine"])
    fact = {"type": "worker_ready", "worker": 1, "reason": "said READY=1", "score": 3}
    write_raw(journal, ["fact", fact, 11.0, 1.7e9 + 1, 0, "more"])
    reader = Journal(journal.fd)
    assert list(reader.read()) == [Snapshot(Observed(wanted=2), (), 0, Past(1.6e9)), entry(1)]
    assert reader.unknown == 0


def test_a_snapshot_that_this_version_does_not_understand_is_an_error(journal: Journal) -> None:
    write_raw(journal, ["snapshot", {"world": "all that is the case"}])
    write(Journal(journal.fd), entry(1))
    with pytest.raises(SenguError, match="the journal of another version cannot be read"):
        list(Journal(journal.fd).read())


# --- it does not grow for ever ---


def fill(journal: Journal) -> int:
    """Write until it is long; the bytes that this took."""
    start = size(journal)
    while not journal.is_long:
        journal.write(ev.WorkerSaid(1, "x" * 1000), 1.0, 1.7e9)
    return size(journal) - start


def test_a_journal_is_long_when_much_was_written_since_its_snapshot() -> None:
    big = Snapshot(Observed(wanted=1), tuple(_records(3_000)), 3_000, Past())
    journal = Journal.create(big)
    assert size(journal) > 200_000
    assert not journal.is_long
    assert 512 * 1024 <= fill(journal) < 514 * 1024
    again = Journal(journal.fd)
    list(again.read())
    assert again.is_long
    os.ftruncate(journal.fd, size(journal) - 4000)
    again = Journal(journal.fd)
    list(again.read())
    assert not again.is_long
    journal.close()


def _records(count: int) -> Iterator[Record]:
    for number in range(count):
        yield Record(number, 1.7e9, "worker_said", "a sentence that is not short", {"worker": 1})
