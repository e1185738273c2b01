from __future__ import annotations

import sqlite3

import pytest
from structlog.testing import capture_logs

from remediator.bus.protocols import StoredRecord
from remediator.engine.model import OutcomeStatus, Verdict
from remediator.journal import schema
from remediator.journal.query import LIMIT_MAX, DecisionQuery
from remediator.journal.schema import StoreError
from remediator.journal.store import DecisionStore, StoreLostError


def records(book):
    return [StoredRecord(decision.seq, "s", payload) for decision, payload in book.written]


@pytest.fixture
async def store(tmp_path):
    made = await DecisionStore.open(tmp_path / "deep" / "journal.sqlite")
    yield made
    await made.close()


async def found(store, **filters):
    return [one.seq for one in await store.select(DecisionQuery(**filters))]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [9, 8, 7, 6, 5, 4, 3, 2, 1]),
        # Records 7 and 8 are about the VM; its incident knows the node.
        ({"node": "n3"}, [9, 8, 7, 6, 5, 4, 3, 2]),
        ({"node": "n4"}, []),
        # Record 4 is the plan that names the VM.
        ({"vm": "payments/db"}, [8, 7, 4]),
        ({"vm": "db"}, [8, 7, 4]),
        ({"vm": "vm/payments/db"}, [8, 7, 4]),
        ({"vm": "other/db"}, []),
        ({"incident": "inc-2", "kind": "finished"}, [7, 6]),
        ({"action": "fence"}, [6, 5]),
        ({"action": "force-stop", "outcome": OutcomeStatus.SUCCEEDED}, [7]),
        ({"outcome": OutcomeStatus.FAILED}, []),
        ({"verdict": Verdict.UNREACHABLE}, [4, 3]),
        ({"policy": "node-lost", "kind": "progress"}, [8]),
        ({"since": 1_790_000_014.05, "until": 1_790_000_020.0}, [6, 5, 4]),
        ({"text": "silent"}, [3, 2]),
        ({"text": "nobody probes"}, [3]),
        ({"text": 'zone OR "( NEAR *'}, []),
        ({"text": "PowerState"}, [6]),
        ({"limit": 2}, [9, 8]),
        ({"limit": 2, "before_seq": 8}, [7, 6]),
        ({"limit": 2, "after_seq": 3}, [4, 5]),
        ({"node": "' OR 1=1 --"}, []),
    ],
)
async def test_filters_find_what_they_say(store, dead_node, filters, expected):
    await store.project(records(dead_node))
    assert await found(store, **filters) == expected


async def test_pages_by_sequence_meet_without_gap_or_overlap(store, book):
    for _ in range(25):
        book.write()
    await store.project(records(book))
    seen: list[int] = []
    while page := await found(store, limit=10, before_seq=seen[-1] if seen else None):
        seen += page
    assert seen == list(range(25, 0, -1))


async def test_a_page_is_never_longer_than_the_limit_of_all_pages(store, book):
    for _ in range(LIMIT_MAX + 5):
        book.write()
    await store.project(records(book))
    assert len(await found(store, limit=10 * LIMIT_MAX)) == LIMIT_MAX


async def test_returns_the_very_bytes_and_the_whole_story(store, dead_node):
    await store.project(records(dead_node))
    one = await store.get(6)
    assert one is not None
    assert (one.decision, one.payload) == dead_node.written[5]
    assert [each.seq for each in await store.story("inc-2")] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert await store.get(99) is None


async def test_what_is_there_already_is_not_added_again(store, dead_node):
    await store.project(records(dead_node))
    progress = await store.project(records(dead_node))
    assert progress.head == dead_node.head
    assert len(await found(store)) == 9


async def test_opens_again_where_it_stopped(tmp_path, dead_node):
    path = tmp_path / "journal.sqlite"
    first = await DecisionStore.open(path)
    await first.project(records(dead_node))
    await first.close()
    second = await DecisionStore.open(path)
    assert second.progress.head == dead_node.head
    assert second.progress.broken is None
    await second.close()


async def test_a_broken_link_is_remembered_and_the_rest_is_projected(store, dead_node):
    rows = records(dead_node)
    rows[2] = StoredRecord(3, "s", rows[2].payload.replace(b"nobody", b"somebody"))
    progress = await store.project(rows)
    assert progress.broken is not None
    assert progress.broken.seq == 4
    assert "link is broken" in progress.broken.problem
    assert len(await found(store)) == 9
    progress = await store.project([StoredRecord(10, "s", b"not a record \xff")])
    assert progress.broken.seq == 4  # the first break stays the one that is told


async def test_a_hole_and_unreadable_bytes_are_breaks_and_no_crash(store, dead_node):
    rows = records(dead_node)
    rows[4] = StoredRecord(5, "s", b'{"why":"\xff"}')
    del rows[6]
    progress = await store.project(rows)
    assert progress.broken.seq == 5
    assert progress.head.seq == 9
    assert await found(store) == [9, 8, 6, 4, 3, 2, 1]


def test_a_damaged_file_is_moved_aside_and_begun_again(tmp_path):
    path = tmp_path / "journal.sqlite"
    for number in (1, 2):
        path.write_bytes(b"this is no database at all, it is a text of some length" * 100)
        with capture_logs() as lines:
            schema.open_for_writing(path).close()
        assert (tmp_path / f"journal.sqlite.corrupt-{number}").read_bytes().startswith(b"this is")
        assert lines[0]["event"] == "projection_moved_aside"
        assert "damaged" in lines[0]["why"]


async def test_damage_inside_an_older_file_is_found_at_start(tmp_path, book):
    path = tmp_path / "journal.sqlite"
    store = await DecisionStore.open(path)
    for _ in range(500):
        book.write()
    await store.project(records(book))
    await store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 40_960] = b"\xa5" * 40_960
    path.write_bytes(content)
    store = await DecisionStore.open(path)
    assert store.progress.head.seq == 0
    assert (tmp_path / "journal.sqlite.corrupt-1").exists()
    await store.close()


def test_a_file_of_another_version_is_moved_aside(tmp_path):
    path = tmp_path / "journal.sqlite"
    connection = schema.open_for_writing(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with capture_logs() as lines:
        schema.open_for_writing(path).close()
    assert lines[0]["why"] == f"version 99, this program writes {schema.VERSION}"


def test_another_programs_database_is_not_touched(tmp_path):
    path = tmp_path / "accounts.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE accounts (id)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        schema.open_for_writing(path)
    assert path.read_bytes() == before


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used as the journal's SQLite file"):
        schema.open_for_writing(tmp_path / "file" / "journal.sqlite")


async def test_deleting_the_file_under_a_running_daemon_begins_a_new_one(store, dead_node):
    await store.project(records(dead_node))
    assert await found(store, limit=1) == [9]
    store.path.unlink()
    with pytest.raises(StoreLostError):
        await store.project([])
    assert store.progress.head.seq == 0
    await store.project(records(dead_node)[:3])
    assert await found(store) == [3, 2, 1]


async def test_a_reader_without_a_file_says_so(store):
    store.path.unlink()
    with pytest.raises(StoreError, match="there is no such file"):
        await store.select(DecisionQuery())


def test_reading_never_makes_or_changes_a_file(tmp_path):
    with pytest.raises(StoreError, match="there is no such file"):
        schema.open_for_reading(tmp_path / "nothing.sqlite")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="cannot be read"):
        schema.open_for_reading(tmp_path / "text.sqlite")


async def test_a_story_longer_than_a_page_is_whole(store, book):
    for number in range(LIMIT_MAX * 2 + 5):
        book.write(incident="inc-1" if number % 2 or number > LIMIT_MAX else "inc-2")
    await store.project(records(book))
    expected = [d.seq for d, _ in book.written if d.incident == "inc-1"]
    assert [one.seq for one in await store.story("inc-1")] == expected
    assert len(expected) > LIMIT_MAX
