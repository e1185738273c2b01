from __future__ import annotations

import json

import pytest
from signal_door import NOW, ORIGIN, SUBJECT, Door, document, signal

from remediator.bus import subjects
from remediator.engine.events import (
    InventorySynced,
    ObjectSeen,
    SignalSeen,
    WatchProgressed,
    encoder,
)
from remediator.engine.model import (
    FactKind,
    NodeFacts,
    Plane,
    Reading,
    node_subject,
    vantage_subject,
    vm_subject,
)
from remediator.signals import wire
from remediator.signals.intake import PAYLOAD_BYTES_MAX, REMEMBERED

GOOD = json.dumps(document()).encode()


# --- what is let in -------------------------------------------------------------------------------


def test_a_signal_becomes_an_event_and_is_counted(door):
    assert door.take(document()) == SignalSeen(signal=signal())
    assert (door.intake.accepted, door.reasons) == (1, [])
    assert door.metric("remediator_signals_total", plane="machine", reading="down") == 1


@pytest.mark.parametrize("beat", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {"plane": Plane.NETWORK, "source": "zone-a-0", "zone": "a"},
        {"plane": Plane.NETWORK, "source": "zone.a", "subject": vantage_subject("zone.a")},
        {"plane": Plane.STORAGE, "source": "longhorn", "subject": vm_subject("ns-1", "db.a")},
        {"plane": Plane.GUEST, "subject": vm_subject("ns", "db"), "aspect": "readiness probe"},
        {"source": "MachineHealthCheck openshift-machine-api/workers", "aspect": "Target"},
        {"plane": Plane.LEASE, "source": "lease watch", "by": ORIGIN},
        {"plane": Plane.KUBELET, "source": "node watch", "aspect": "KernelDeadlock", "by": ORIGIN},
        {"subject": node_subject("n1.rack-2.example.com"), "detail": "Übung, 30 °C"},
    ],
)
def test_what_our_own_publishers_offer_is_let_in(door, fields, beat):
    given = signal(reading=Reading.UP, **fields)
    event = door.intake.take(wire.subject_of(given, beat=beat), wire.encode(given))
    assert event == SignalSeen(signal=given), door.office.buried


def test_unknown_fields_are_no_fault(door):
    assert door.take(document(ticket="INC-1", nested={"a": [1, None, {"plane": 5}]})) is not None


def test_the_subject_may_leave_out_source_and_aspect(door):
    assert door.take(document(aspect="fan")) is not None
    door.clock.at += 1
    tail = f"{SUBJECT}.hypervisor-watch.fan"
    assert door.take(document(aspect="fan", at=NOW + 1), tail) is not None


def test_whole_numbers_are_times_too(door):
    assert door.take(document(at=1_800_000_000)) is not None


# --- what is refused ------------------------------------------------------------------------------

BIG = GOOD[:-1] + b', "pad": "' + b"x" * PAYLOAD_BYTES_MAX + b'"}'
DEEP = GOOD[:-1] + b', "pad": ' + b"[" * 8000 + b"]" * 8000 + b"}"


def swapped(old: bytes, new: bytes) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        ("too-large", BIG),
        ("not-utf8", b"\xff\xfe\x00"),
        ("not-utf8", swapped(b"hypervisor", b"hyper\xffvisor")),
        ("not-utf8", GOOD[:-1] + b', "unknown": "\xff"}'),
        ("not-utf8", swapped(b"machine", b"mach\xc3")),
        ("not-json", b""),
        ("not-json", GOOD[:-1]),
        ("not-json", GOOD + GOOD),
        ("not-json", DEEP),
        ("not-json", swapped(b"1800000000.0", b"NaN")),
        ("not-json", swapped(b"1800000000.0", b"-Infinity")),
        ("not-json", swapped(b"hypervisor", b"\\ud800")),
        ("wrong-type", b"[]"),
        ("wrong-type", b"null"),
        ("wrong-type", b"{}"),
        ("wrong-type", document(subject="node/n1")),
        ("wrong-type", document(subject={"kind": "node"})),
        ("wrong-type", document(at="2026-11-20T03:12:00Z")),
        ("wrong-type", document(at=True)),
        ("wrong-type", document(first="no")),
        ("wrong-type", document(detail=None)),
        ("unknown-plane", document(plane="astral")),
        ("wrong-reading", document(reading="DOWN")),
        ("bad-number", swapped(b"1800000000.0", b"1e999")),
        ("bad-number", swapped(b"1800000000.0", b"1" + b"0" * 400)),
        ("bad-number", document(at=-1.0)),
        ("bad-number", document(at=NOW * 1000)),
        ("too-long", document(source="")),
        ("too-long", document(source="x" * 254)),
        ("too-long", document(aspect="x" * 254)),
        ("too-long", document(zone="x" * 64)),
        ("too-long", document(detail="x" * 1001)),
        ("bad-text", document(source="a\x1b[31mb")),
        ("bad-text", document(detail="two\nlines")),
        ("bad-text", document(aspect="\x00")),
        ("bad-text", document(zone="a\u202eb")),
        ("mismatch", document(plane="network")),
        ("mismatch", document(subject={"kind": "node", "name": "n2"})),
        ("mismatch", document(subject={"kind": "vm", "name": "n1", "namespace": "a"})),
        ("mismatch", document(subject={"kind": "node", "name": "n1", "namespace": "a"})),
    ],
)
def test_a_document_that_is_none_is_refused_with_its_reason(door, reason, payload):
    assert door.take(payload) is None
    assert door.reasons == [reason]
    assert (door.intake.accepted, door.intake.refused.total()) == (0, 1)
    assert door.metric("remediator_signals_refused_total", reason=reason) == 1


@pytest.mark.parametrize(
    ("reason", "subject"),
    [
        ("bad-subject", "remediator.signal.machine.node"),
        ("bad-subject", "remediator.signal.machine"),
        ("bad-subject", "remediator.heartbeat."),
        ("bad-subject", f"{SUBJECT}.a.b.c"),
        ("unknown-plane", "remediator.signal.astral.node.n1"),
        ("unknown-plane", "remediator.signal..node.n1"),
        ("wrong-kind", "remediator.signal.machine.vm.a/n1"),
        ("wrong-kind", "remediator.signal.guest.node.n1"),
        ("wrong-kind", "remediator.signal.machine.daemon.a"),
        ("wrong-kind", "remediator.signal.lease.vantage.a"),
        ("bad-name", "remediator.signal.machine.node.N1"),
        ("bad-name", "remediator.signal.machine.node."),
        ("bad-name", "remediator.signal.machine.node.-n1"),
        ("bad-name", "remediator.signal.machine.node.n1__a"),
        ("bad-name", "remediator.signal.machine.node.a/n1"),
        ("bad-name", f"remediator.signal.machine.node.{'x' * 254}"),
        ("bad-name", "remediator.signal.guest.vm.db"),
        ("bad-name", "remediator.signal.guest.vm.a/b/c"),
        ("bad-name", "remediator.signal.guest.vm.a_b/c"),
        ("bad-name", f"remediator.signal.guest.vm.{'x' * 64}/c"),
        ("bad-name", "remediator.signal.network.vantage.a/b"),
        ("bad-name", "remediator.signal.network.vantage.é"),
        ("mismatch", "remediator.signal.machine.node.n2"),
        ("mismatch", f"{SUBJECT}.another"),
        ("mismatch", f"{SUBJECT}.hypervisor-watch.fan"),
    ],
)
def test_a_subject_that_is_none_or_another_s_is_refused_with_its_reason(door, reason, subject):
    assert door.take(document(), subject) is None
    assert door.reasons == [reason]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"plane": Plane.LEASE, "reading": Reading.DOWN}, "wrong-reading"),
        ({"plane": Plane.LEASE, "reading": Reading.UNKNOWN}, "wrong-reading"),
        (
            {"plane": Plane.NETWORK, "source": "a", "subject": vantage_subject("a")},
            "wrong-reading",
        ),
        (
            {
                "plane": Plane.NETWORK,
                "source": "b",
                "subject": vantage_subject("a"),
                "reading": Reading.UP,
            },
            "wrong-source",
        ),
    ],
)
def test_a_plane_gives_only_its_own_readings_and_a_vantage_point_speaks_for_itself(
    door, fields, reason
):
    given = signal(**fields, by=ORIGIN)
    subject = subjects.signal(given.plane.value, given.subject.kind, given.subject.name)
    assert door.intake.take(subject, wire.encode(given)) is None
    assert door.reasons == [reason]


def test_a_refused_message_changes_nothing_for_the_next_of_its_subject(door):
    for bad in (b"\xff", document(source=""), document(source="\x00"), document(plane="network")):
        assert door.take(bad) is None
        door.clock.at += 1
        assert door.take(document(at=door.clock.at)) is not None


def test_a_subject_that_names_a_process_is_that_process_s_alone(door):
    beat = signal(plane=Plane.MACHINE, source="ours", by=ORIGIN)
    subject = f"{SUBJECT}.{ORIGIN}"
    assert door.intake.take(subject, wire.encode(beat)) is not None
    for by in ("", "another"):
        stranger = signal(plane=Plane.MACHINE, source="ours", by=by, at=NOW + 1)
        assert door.intake.take(subject, wire.encode(stranger)) is None
    other = signal(plane=Plane.MACHINE, source="theirs", at=NOW + 2)
    assert door.intake.take(subject, wire.encode(other)) is None
    assert door.reasons == ["mismatch"] * 3
    later = signal(plane=Plane.MACHINE, source="ours", by=ORIGIN, at=NOW + 3)
    assert door.intake.take(subject, wire.encode(later)) is not None


# --- repeats --------------------------------------------------------------------------------------


def test_the_same_signal_twice_is_taken_once_and_counted(door):
    assert door.take(document()) is not None
    assert door.take(document(), f"{SUBJECT}.hypervisor-watch") is None
    beat = "remediator.heartbeat.machine.node.n1.hypervisor-watch"
    assert door.take(document(detail="said again"), beat) is None
    assert (door.intake.accepted, door.intake.duplicates, door.reasons) == (1, 2, [])
    assert door.metric("remediator_signals_duplicate_total") == 2


@pytest.mark.parametrize(
    "other",
    [
        {"at": NOW + 0.000001},
        {"reading": "up"},
        {"source": "another"},
        {"aspect": "fan"},
        {"first": True},
    ],
)
def test_a_signal_that_differs_in_what_its_id_is_made_of_is_another(door, other):
    assert door.take(document()) is not None
    assert door.take(document(**other)) is not None


def test_repeats_are_remembered_for_a_bounded_number_of_signals(door):
    assert door.take(document()) is not None
    for n in range(REMEMBERED - 1):
        assert door.take(document(at=NOW - 1 - n)) is not None
    assert door.take(document()) is None
    for n in range(2 * REMEMBERED):
        door.take(document(at=NOW + 1 + n))
    assert door.take(document()) is not None
    assert len(door.intake._seen) + len(door.intake._seen_before) <= 2 * REMEMBERED


def test_subjects_and_sources_are_remembered_within_bounds(door, monkeypatch):
    monkeypatch.setattr("remediator.signals.intake.PLACES_MAX", 100)
    monkeypatch.setattr("remediator.signals.intake.SPEAKERS_MAX", 100)
    for n in range(1000):
        name = f"n{n}"
        given = signal(source=f"program {n}", subject=node_subject(name))
        assert door.intake.take(wire.subject_of(given), wire.encode(given)) is not None
    assert len(door.intake._places) <= 100
    assert len(door.intake._speakers) <= 100


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "oddities"),
    [
        ([0, 10, 20], {}),
        ([3600], {"future": 1}),
        ([-3600], {"past": 1}),
        ([0, 10, 9], {"out-of-order": 1}),
        ([0, 600, 610], {"future": 2, "jump": 1}),
        ([0, -600, -590], {"past": 2, "jump": 1, "out-of-order": 1}),
    ],
)
def test_odd_times_are_counted_and_let_in(door, times, oddities):
    for offset_s in times:
        assert door.take(document(at=NOW + offset_s)) is not None
    assert door.intake.odd_times == oddities
    for oddity, count in oddities.items():
        assert door.metric("remediator_signals_odd_time_total", oddity=oddity) == count


def test_a_source_whose_clock_is_always_wrong_jumps_only_once(door):
    for n in range(10):
        door.clock.at += 10
        assert door.take(document(at=NOW - 7200 + 10 * n)) is not None
    assert door.intake.odd_times == {"past": 10}


# --- facts and marks ------------------------------------------------------------------------------

FACTS = ObjectSeen(facts=NodeFacts(name="n1", uid="u"), by=ORIGIN)
SYNCED = InventorySynced(kind=FactKind.NODE, by=ORIGIN)
MARK = WatchProgressed(watch="leases", at=NOW, by=ORIGIN)


@pytest.mark.parametrize(
    ("subject", "event"),
    [
        (subjects.inventory("Node", "n1"), FACTS),
        (subjects.inventory_synced("Node"), SYNCED),
        (subjects.watch_progress("leases"), MARK),
        (subjects.watch_progress("leases", ORIGIN), MARK),
    ],
)
def test_facts_and_marks_are_taken_from_our_own_watchers_only(door, subject, event):
    assert door.intake.take(subject, encoder.encode(event)) == event
    theirs = encoder.encode(event).replace(b"0123", b"9999")
    assert door.intake.take(subject, theirs) is None
    assert door.reasons == ["not-ours"]
    anybody = Door(origin="")
    assert anybody.intake.take(subject.replace("0123", "9999"), theirs)


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        (subjects.inventory("Node", "n1"), GOOD),
        (subjects.inventory("Node", "n1"), b"\xff"),
        (subjects.inventory("Node", "n1"), b"[" * 100_000),
        (subjects.inventory("Node", "n1"), encoder.encode(FACTS).replace(b'"n1"', b'"n\xff"')),
        (subjects.watch_progress("leases"), GOOD),
        (subjects.watch_progress("leases"), encoder.encode(SYNCED)),
        (subjects.watch_progress("nodes"), encoder.encode(MARK)),
        (subjects.inventory("Node", "n1"), encoder.encode(MARK)),
        (
            subjects.watch_progress("leases"),
            encoder.encode(WatchProgressed(watch="leases", at=NOW + 600, by=ORIGIN)),
        ),
    ],
)
def test_what_our_own_watchers_never_send_is_refused(door, subject, payload):
    assert door.intake.take(subject, payload) is None
    assert door.reasons == ["bad-event"]


def test_a_former_leader_s_mark_from_a_clock_that_is_ahead_stops_no_silence_clock(door):
    """Such a mark would make the engine deaf to its own watch's marks until that time comes."""
    late = WatchProgressed(watch="leases", at=NOW + 600, by="the former leader")
    subject = subjects.watch_progress("leases")
    assert door.intake.take(subject, encoder.encode(late)) is None
    assert door.intake.take(subject, encoder.encode(MARK)) == MARK


def test_a_mark_that_is_heard_once_more_does_not_look_like_a_clock_set_back(door):
    subject = subjects.watch_progress("leases")
    marks = [WatchProgressed(watch="leases", at=NOW - 10 + n, by=ORIGIN) for n in range(3)]
    for mark in marks:
        assert door.intake.take(subject, encoder.encode(mark)) == mark
    for mark in marks:
        assert door.intake.take(subject, encoder.encode(mark)) is None
    assert (door.intake.accepted, door.intake.duplicates, door.reasons) == (3, 3, [])
    nodes = WatchProgressed(watch="nodes", at=NOW - 10, by=ORIGIN)
    assert door.intake.take(subjects.watch_progress("nodes"), encoder.encode(nodes)) == nodes
