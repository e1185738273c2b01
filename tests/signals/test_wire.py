from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signal_door import NOW, Door, signal

from remediator.bus import subjects
from remediator.engine.model import Plane, Reading, node_subject, vantage_subject, vm_subject
from remediator.signals import wire


class Published:
    def __init__(self) -> None:
        self.offers: list[tuple[str, bytes, str | None]] = []

    def offer(self, subject, payload, *, message_id=None):
        self.offers.append((subject, payload, message_id))


def test_what_travels_is_the_bare_document():
    assert json.loads(wire.encode(signal())) == {
        "plane": "machine",
        "source": "hypervisor-watch",
        "subject": {"kind": "node", "name": "n1", "namespace": ""},
        "reading": "down",
        "at": NOW,
        "aspect": "",
        "zone": "",
        "detail": "",
        "first": False,
        "by": "",
    }


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        (
            {"plane": Plane.LEASE, "source": "lease watch"},
            "remediator.signal.lease.node.n1",
        ),
        (
            {"plane": Plane.POWER, "source": "redfish https://bmc/1"},
            "remediator.signal.power.node.n1",
        ),
        (
            {"plane": Plane.KUBELET, "source": "node watch", "aspect": "KernelDeadlock"},
            "remediator.signal.kubelet.node.n1.node-watch.KernelDeadlock",
        ),
        (
            {"plane": Plane.NETWORK, "source": "zone.a-0"},
            "remediator.signal.network.node.n1.zone_a-0",
        ),
        (
            {"plane": Plane.NETWORK, "source": "a", "subject": vantage_subject("a")},
            "remediator.signal.network.vantage.a.a",
        ),
        (
            {"plane": Plane.STORAGE, "source": "longhorn", "subject": vm_subject("ns", "d.b")},
            "remediator.signal.storage.vm.ns/d_b.longhorn",
        ),
        (
            {"source": "MachineHealthCheck ns/x", "aspect": "Rémediation"},
            "remediator.signal.machine.node.n1.MachineHealthCheck-ns-x.R-mediation",
        ),
    ],
)
def test_each_source_and_aspect_has_a_subject_of_its_own_where_there_are_several(fields, subject):
    assert wire.subject_of(signal(**fields)) == subject
    assert wire.subject_of(signal(**fields), beat=True) == subject.replace("signal", "heartbeat")


def test_a_beat_of_our_own_is_on_a_subject_of_its_process():
    beat = signal(plane=Plane.LEASE, source="lease watch", reading=Reading.UP, by="0123456789ab")
    subject = wire.subject_of(beat, beat=True)
    assert subject == "remediator.heartbeat.lease.node.n1.0123456789ab"
    assert wire.subject_of(beat) == "remediator.signal.lease.node.n1"


def test_the_id_is_what_the_documentation_says():
    given = signal(aspect="fan", at=1_800_000_000.1234567)
    lines = ["machine", "hypervisor-watch", "node/n1", "fan", "1800000000.123457", "down", ""]
    assert wire.signal_id(given) == hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    "other",
    [
        {"plane": Plane.STORAGE},
        {"source": "b"},
        {"subject": node_subject("n2")},
        {"aspect": "x"},
        {"at": NOW + 0.000001},
        {"reading": Reading.UP},
        {"first": True},
    ],
)
def test_another_observation_has_another_id(other):
    assert wire.signal_id(signal(**other)) != wire.signal_id(signal())


def test_words_about_an_observation_are_no_part_of_its_id():
    told = signal(detail="x", zone="a", by="b")
    assert wire.signal_id(told) == wire.signal_id(signal())


def test_an_edition_tells_a_new_leader_s_observations_from_the_old_one_s():
    published = Published()
    for edition in ("", "a", "b"):
        wire.offer(published, signal(), edition=edition)
    own = wire.signal_id(signal())
    assert [message_id for _, _, message_id in published.offers] == [own, f"{own}:a", f"{own}:b"]


def test_a_name_that_is_none_is_not_offered():
    published = Published()
    assert not wire.offer(published, signal(subject=node_subject("n 1")))
    assert published.offers == []


words = st.text(max_size=1200)
signals = st.builds(
    signal,
    plane=st.sampled_from([Plane.NETWORK, Plane.MACHINE, Plane.STORAGE]),
    source=words.filter(bool),
    aspect=words,
    zone=words,
    detail=st.text(alphabet=st.characters(codec=None), max_size=1200),
    reading=st.sampled_from(Reading),
    at=st.floats(min_value=0, max_value=1e11, exclude_max=True),
    first=st.booleans(),
)


@given(signals, st.booleans())
def test_whatever_a_device_says_of_itself_our_own_signals_are_let_in(told, beat):
    published = Published()
    assert wire.offer(published, told, beat=beat)
    ((subject, payload, _),) = published.offers
    door = Door()
    event = door.intake.take(subject, payload)
    assert event is not None, door.office.buried
    same = ("plane", "subject", "reading", "at", "first")
    heard, said = event.signal, told
    assert [getattr(heard, field) for field in same] == [getattr(said, field) for field in same]


@given(signals)
def test_a_fit_signal_comes_back_as_it_was(told):
    published = Published()
    wire.offer(published, told)
    again = wire.decode(published.offers[0][1])
    wire.offer(published, again)
    assert published.offers[0] == published.offers[1]


def test_the_planes_of_one_source_are_told_apart_by_nothing_but_the_subject():
    with pytest.raises(subjects.SubjectNameError):
        wire.subject_of(signal(subject=node_subject("a_b")))
    with pytest.raises(msgspec.ValidationError):
        wire.decode(b"[]")
