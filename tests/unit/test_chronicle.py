"""The chronicle: who reads along gets each record once, and in order."""

from sengu.control.api import Record
from sengu.model.events import ScaleRequested
from sengu.server.chronicle import Chronicle

MORE_THAN_ARE_KEPT = 2500


def write(chronicle: Chronicle, count: int) -> None:
    for number in range(count):
        chronicle.write(ScaleRequested(number, "test"), f"scaled to {number}", 0.0)


def test_who_reads_along_is_told_of_what_is_new_when_it_is_time() -> None:
    chronicle, heard = Chronicle(), list[Record]()
    write(chronicle, 2)
    end = chronicle.follow(heard.append)
    write(chronicle, 2)
    assert not heard
    chronicle.tell()
    chronicle.tell()
    assert [record.id for record in heard] == [3, 4]
    end()
    write(chronicle, 1)
    chronicle.tell()
    assert len(heard) == 2
    assert [record.id for record in chronicle.since(4)] == [5]


def test_nothing_is_lost_of_more_than_are_kept() -> None:
    chronicle, heard = Chronicle(), list[Record]()
    write(chronicle, 7)
    chronicle.follow(heard.append)
    write(chronicle, MORE_THAN_ARE_KEPT)
    chronicle.tell()
    assert [record.id for record in heard] == list(range(8, 8 + MORE_THAN_ARE_KEPT))


def test_who_leaves_when_told_leaves_the_others_alone() -> None:
    chronicle, heard = Chronicle(), list[Record]()
    end = chronicle.follow(lambda _record: end())
    chronicle.follow(heard.append)
    write(chronicle, 1)
    chronicle.tell()
    assert [record.id for record in heard] == [1]
