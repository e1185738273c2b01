from __future__ import annotations

import pytest
from signal_door import ORIGIN, Door, signal

from remediator.engine.model import Plane, Reading, node_subject, vm_subject
from remediator.signals import wire
from remediator.signals.sources import (
    RESERVED,
    KnownSource,
    SignalSettings,
    SignalSettingsError,
    check_settings,
)


def heard(door: Door, **fields) -> str:
    """Return "" where the signal is let in, else the reason."""
    given = signal(reading=Reading.UP, **fields)
    taken = door.intake.take(wire.subject_of(given), wire.encode(given))
    return "" if taken else door.reasons[-1]


@pytest.mark.parametrize("plane", list(Plane))
def test_only_the_daemon_s_own_planes_are_closed_to_strangers(plane):
    about = vm_subject("ns", "db") if plane is Plane.GUEST else node_subject("n1")
    reason = heard(Door(), plane=plane, subject=about)
    assert reason == ("unknown-source" if plane in RESERVED else "")


def test_the_name_of_our_own_source_alone_opens_nothing():
    door = Door()
    assert heard(door, plane=Plane.LEASE, source="lease watch") == "unknown-source"
    assert heard(door, plane=Plane.LEASE, source="lease watch", by="f" * 12) == "unknown-source"
    assert heard(door, plane=Plane.LEASE, source="lease watch", by=ORIGIN) == ""
    assert heard(door, plane=Plane.LEASE, source="lease watch", at=5.0) == "unknown-source"


def test_a_configured_source_may_speak_on_a_reserved_plane():
    door = Door(SignalSettings(known=(KnownSource(name="pdu-*", planes=(Plane.POWER,)),)))
    assert heard(door, plane=Plane.POWER, source="pdu-7") == ""
    assert heard(door, plane=Plane.POWER, source="ups-7") == "unknown-source"


def test_a_known_source_is_held_to_its_planes_and_subjects():
    known = KnownSource(
        name="hypervisor-watch", planes=(Plane.MACHINE,), subjects=("node/worker-*", "vm/pay/*")
    )
    door = Door(SignalSettings(known=(known,)))
    assert heard(door, subject=node_subject("worker-1")) == ""
    assert heard(door, subject=node_subject("master-1")) == "wrong-source"
    assert heard(door, plane=Plane.NETWORK, subject=node_subject("worker-1")) == "wrong-source"
    assert heard(door, source="someone else", subject=node_subject("master-1")) == ""


def test_several_entries_of_one_source_add_up():
    door = Door(
        SignalSettings(
            known=(
                KnownSource(name="ops", planes=(Plane.MACHINE,), subjects=("node/a",)),
                KnownSource(name="o*", planes=(Plane.MACHINE, Plane.NETWORK), subjects=("node/b",)),
            )
        )
    )
    assert heard(door, source="ops", subject=node_subject("a")) == ""
    assert heard(door, source="ops", subject=node_subject("b"), plane=Plane.NETWORK) == ""
    assert heard(door, source="ops", subject=node_subject("a"), plane=Plane.NETWORK) != ""


def test_where_sources_must_be_known_strangers_are_refused_on_every_plane():
    known = (KnownSource(name="zone-*", planes=(Plane.NETWORK,)),)
    door = Door(SignalSettings(require_known=True, known=known))
    assert heard(door) == "unknown-source"
    assert heard(door, plane=Plane.NETWORK, source="zone-a-0") == ""
    assert heard(door, plane=Plane.STORAGE, source="longhorn", by=ORIGIN) == ""
    assert door.metric("remediator_signals_refused_total", reason="unknown-source") == 1


def test_two_sources_on_one_subject_are_judged_each_by_itself():
    door = Door(SignalSettings(known=(KnownSource(name="pdu", planes=(Plane.POWER,)),)))
    reasons = [
        heard(door, plane=Plane.POWER, source=("pdu", "ups")[n % 2], at=float(n)) for n in range(6)
    ]
    assert reasons == ["", "unknown-source"] * 3


def test_patterns_are_of_the_shell_and_match_the_whole_name():
    door = Door(SignalSettings(known=(KnownSource(name="pdu", planes=(Plane.POWER,)),)))
    assert heard(door, plane=Plane.POWER, source="pdu-1") == "unknown-source"
    assert heard(door, plane=Plane.POWER, source="my pdu") == "unknown-source"


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        (KnownSource(name="", planes=(Plane.POWER,)), ("known", 0, "name")),
        (KnownSource(name="a", planes=()), ("known", 0, "planes")),
        (KnownSource(name="a", planes=(Plane.POWER,), subjects=()), ("known", 0, "subjects")),
    ],
)
def test_an_entry_that_could_never_match_is_a_fault(entry, path):
    with pytest.raises(SignalSettingsError) as caught:
        check_settings(SignalSettings(known=(entry,)))
    assert caught.value.path == path


def test_under_a_name_of_our_own_nobody_else_is_heard_on_its_plane():
    door = Door()
    source = "MachineHealthCheck ns/workers"
    assert heard(door, source=source, at=1.0) == ""
    assert heard(door, source=source, at=2.0, by=ORIGIN) == ""
    assert heard(door, source=source, at=3.0) == "wrong-source"
    assert heard(door, source=source, at=4.0, by="another") == "wrong-source"
    assert heard(door, source=source, at=5.0, subject=node_subject("n2")) == "wrong-source"
    assert heard(door, source=source, at=6.0, plane=Plane.STORAGE) == ""
    assert heard(door, source=source, at=7.0, by=ORIGIN) == ""


def test_our_own_names_are_remembered_however_many_others_speak(monkeypatch):
    monkeypatch.setattr("remediator.signals.intake.SPEAKERS_MAX", 50)
    door = Door()
    assert heard(door, source="ours", by=ORIGIN) == ""
    for n in range(200):
        assert heard(door, source=f"program {n}", subject=node_subject(f"n{n}")) == ""
    assert heard(door, source="ours", subject=node_subject("other")) == "wrong-source"


def test_to_the_engine_only_our_own_signals_carry_a_name():
    door = Door()
    for by, kept in ((ORIGIN, ORIGIN), ("somebody", "")):
        given = signal(by=by, source=f"of {by}")
        assert door.intake.take(wire.subject_of(given), wire.encode(given)).signal.by == kept
