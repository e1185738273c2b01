"""What strangers say has its bounds, and takes no room from what our own watchers said."""

from __future__ import annotations

from remediator.engine.inventory import Inventory
from remediator.engine.model import (
    Plane,
    Reading,
    Signal,
    VmFacts,
    VmiFacts,
    node_subject,
    vm_subject,
)
from remediator.engine.said import SAID_MAX, SaidBook
from remediator.engine.vm_evidence import VmEvidence


def said(at: float, *, source: str = "hypervisor", aspect: str = "", by: str = "") -> Signal:
    return Signal(
        plane=Plane.MACHINE,
        source=source,
        subject=node_subject("n1"),
        reading=Reading.DOWN,
        at=at,
        aspect=aspect,
        by=by,
    )


def aspects(book: SaidBook) -> set[str]:
    return {each.aspect for each in book.of("n1")}


def test_ever_new_strangers_push_out_each_other_and_nothing_of_ours():
    book = SaidBook()
    for number in range(3):
        assert book.take(said(number, aspect=f"ours {number}", by="me"), float(number))
    for number in range(10 * SAID_MAX):
        assert book.take(said(number, aspect=f"stranger {number}"), 10.0 + number)
    kept = aspects(book)
    assert len(kept) == SAID_MAX
    assert {"ours 0", "ours 1", "ours 2", f"stranger {10 * SAID_MAX - 1}"} <= kept


def test_our_own_finds_room_among_strangers():
    book = SaidBook()
    for number in range(SAID_MAX):
        book.take(said(number, aspect=f"stranger {number}"), float(number))
    assert book.take(said(0.0, aspect="ours", by="me"), 100.0)
    assert "ours" in aspects(book)
    assert "stranger 0" not in aspects(book)


def test_where_all_is_ours_a_stranger_finds_no_room_and_our_oldest_makes_place_for_our_own():
    book = SaidBook()
    for number in range(SAID_MAX):
        book.take(said(number, aspect=f"ours {number}", by="me"), float(number))
    assert not book.take(said(0.0, aspect="stranger"), 100.0)
    assert "stranger" not in aspects(book)
    assert book.take(said(0.0, aspect="new", by="me"), 101.0)
    assert aspects(book) == {"new", *(f"ours {number}" for number in range(1, SAID_MAX))}


def test_strangers_do_not_push_out_what_our_own_watchers_said_of_a_guest():
    inventory = Inventory()
    inventory.put(VmFacts(namespace="ns", name="db", uid="u"))
    inventory.put(VmiFacts(namespace="ns", name="db", uid="v", phase="Running", node="n1"))
    evidence = VmEvidence(inventory)

    def told(source: str, by: str) -> bool:
        signal = Signal(
            plane=Plane.GUEST,
            source=source,
            subject=vm_subject("ns", "db"),
            reading=Reading.DOWN,
            at=1.0,
            aspect="panic",
            by=by,
        )
        return evidence.note_signal(signal, 1.0)

    assert told("launcher events", "me")
    for number in range(100):
        told(f"program {number}", "")
    assert not told("launcher events", "me"), "it was forgotten, and taken in as new"
