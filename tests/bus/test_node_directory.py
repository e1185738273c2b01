"""What a prober learns of the nodes from the INVENTORY stream alone, on a real server."""

from __future__ import annotations

import pytest

from remediator.bus import subjects
from remediator.bus.connection import connect
from remediator.bus.node_directory import NodeDirectory
from remediator.bus.publisher import Publisher
from remediator.bus.streams import ensure_all
from remediator.engine.events import InventorySynced, ObjectGone, ObjectSeen, encoder
from remediator.engine.model import FactKind, NodeFacts, VmFacts


class Leader:
    """Reports nodes as a leader's watchers do."""

    def __init__(self, connection) -> None:
        self.publisher = Publisher(connection)

    def seen(self, *names: str, zone: str = "a") -> None:
        for name in names:
            facts = NodeFacts(name=name, uid=f"u-{name}", zone=zone, address="10.0.0.1")
            self.offer(subjects.inventory("Node", name), ObjectSeen(facts=facts))

    def gone(self, name: str) -> None:
        self.offer(subjects.inventory("Node", name), ObjectGone(kind=FactKind.NODE, name=name))

    def synced(self) -> None:
        event = InventorySynced(kind=FactKind.NODE)
        self.offer(subjects.inventory_synced("Node"), event)

    def offer(self, subject, event) -> None:
        self.publisher.offer(subject, encoder.encode(event))


@pytest.fixture
async def leader(connection, run):
    leading = Leader(connection)
    async with run(leading.publisher.run()):
        yield leading


@pytest.fixture
async def directory(connection, run):
    following = NodeDirectory(connection)
    async with run(following.run()):
        yield following


async def test_what_was_reported_before_it_began_is_known_at_once(connection, leader, run, until):
    leader.seen("n1", "n2.example.com")
    leader.synced()
    assert await leader.publisher.flush(5.0)
    following = NodeDirectory(connection)
    async with run(following.run()):
        await until(lambda: following.synced)
        assert sorted(following.nodes) == ["n1", "n2.example.com"]
        assert following.nodes["n1"].address == "10.0.0.1"


async def test_changes_and_deletions_follow(leader, directory, until):
    leader.seen("n1", "n2")
    leader.synced()
    await until(lambda: directory.synced)
    leader.seen("n1", zone="b")
    leader.gone("n2")
    await until(lambda: set(directory.nodes) == {"n1"} and directory.nodes["n1"].zone == "b")


async def test_a_node_deleted_while_nobody_watched_goes_with_the_next_whole_picture(
    leader, directory, until
):
    leader.seen("n1", "n2", "n3")
    leader.synced()
    await until(lambda: directory.synced and len(directory.nodes) == 3)
    leader.seen("n1")  # changed in between: it is not deleted for that
    leader.seen("n1", "n3")  # the next leader offers all there is
    assert len(directory.nodes) == 3  # until its picture is whole
    leader.synced()
    await until(lambda: set(directory.nodes) == {"n1", "n3"})


async def test_other_kinds_and_garbage_change_nothing(leader, directory, until):
    leader.seen("n1")
    leader.synced()
    await until(lambda: directory.synced)
    subject = subjects.inventory("Node", "n2")
    for garbage in (
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"event": "seen"}',
        b'{"event": "seen", "facts": 1}',
    ):
        leader.publisher.offer(subject, garbage)
        assert await leader.publisher.flush(5.0)
    leader.offer(
        subjects.inventory("Node", "n9"),
        ObjectSeen(facts=VmFacts(namespace="ns", name="vm", uid="u")),
    )
    leader.offer(subjects.inventory("Node", "n8"), ObjectGone(kind=FactKind.VM, name="n1"))
    leader.seen("n3")
    await until(lambda: "n3" in directory.nodes)
    assert sorted(directory.nodes) == ["n1", "n3"]
    assert directory.unreadable == 5


async def test_while_nats_is_away_the_nodes_stay_known_and_a_stream_made_anew_is_read_again(
    watched, connection, leader, directory, until
):
    leader.seen("n1", "n2")
    leader.synced()
    await until(lambda: directory.synced)
    watched._process.kill()  # and with it the stream, which lives in memory
    await until(lambda: not connection.connected)
    assert sorted(directory.nodes) == ["n1", "n2"]
    await until(lambda: connection.connected, 20.0)
    leader.seen("n2", "n3")
    leader.synced()
    await until(lambda: set(directory.nodes) == {"n2", "n3"}, 20.0)


async def test_it_waits_for_a_stream_that_is_not_there_yet(server, run, until):
    bare = await connect(server.settings, "prober")
    following = NodeDirectory(bare)
    async with run(following.run()):
        daemon = await connect(server.settings, "daemon")
        await ensure_all(daemon)
        leader = Leader(daemon)
        async with run(leader.publisher.run()):
            leader.seen("n1")
            await until(lambda: "n1" in following.nodes, 20.0)
        assert following.following
        await daemon.close()
    await bare.close()
