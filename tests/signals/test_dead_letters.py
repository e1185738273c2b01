from __future__ import annotations

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from signal_door import NOW, SUBJECT, Office, document

from remediator.metrics import Metrics
from remediator.signals.dead_letters import (
    LETTERS_AT_ONCE,
    LETTERS_PER_S,
    PAYLOAD_BYTES_MAX,
    DeadLetters,
)
from remediator.signals.refusal import Refusal, RefusedError


def test_a_letter_holds_the_message_as_it_came_and_says_why(door):
    door.take(b'{"plane": "machine\xff"}')
    ((subject, payload, headers),) = door.office.buried
    assert subject == "remediator.dead-letter.not-utf8.signal.machine.node.n1"
    assert payload == b'{"plane": "machine\xff"}'
    assert headers == {
        "Remediator-Reason": "not-utf8",
        "Remediator-Why": "'utf-8' codec can't decode byte 0xff in position 18: invalid start byte",
        "Remediator-Subject": SUBJECT,
        "Remediator-Time": "2027-01-15T08:00:00.000+00:00",
        "Remediator-Bytes": "21",
    }


def test_a_large_payload_is_cut_and_its_length_told(door):
    door.take(b"x" * 1_000_000)
    ((_, payload, headers),) = door.office.buried
    assert payload == b"x" * PAYLOAD_BYTES_MAX
    assert headers["Remediator-Bytes"] == "1000000"


def test_a_flood_is_cut_to_a_stock_and_a_rate_and_every_letter_is_accounted_for(door):
    refused = 0
    for _ in range(10):  # seconds
        for _ in range(1000):
            door.take(b"garbage")
            refused += 1
            door.clock.at += 0.001
    letters = door.dead_letters
    assert letters.buried + letters.dropped == refused == door.intake.refused.total()
    assert letters.buried == len(door.office.buried)
    assert letters.buried == pytest.approx(LETTERS_AT_ONCE + 10 * LETTERS_PER_S, abs=2)
    assert door.metric("remediator_dead_letters_total", fate="sent") == letters.buried
    assert door.metric("remediator_dead_letters_total", fate="dropped") == letters.dropped


def test_after_a_flood_the_stock_fills_again(door):
    for _ in range(2 * LETTERS_AT_ONCE):
        door.take(b"garbage")
    door.clock.at += LETTERS_AT_ONCE / LETTERS_PER_S
    before = door.dead_letters.buried
    for _ in range(2 * LETTERS_AT_ONCE):
        door.take(b"garbage")
    assert door.dead_letters.buried - before == LETTERS_AT_ONCE


def test_during_a_flood_what_is_right_is_let_in(door):
    for n in range(1000):
        door.take(b"garbage")
        assert door.take(document(at=NOW + n)) is not None


def test_the_log_has_one_line_per_reason_in_ten_seconds_and_counts_the_rest(door):
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            door.take(b"garbage")
            door.take(document(plane="astral"))
        door.clock.at += 10.0
        door.take(b"garbage")
    assert [(line["reason"], line["unsaid"]) for line in lines] == [
        ("not-json", 0),
        ("unknown-plane", 0),
        ("not-json", 99),
    ]


def test_without_an_office_refusals_are_counted_as_dropped():
    metrics = Metrics(CollectorRegistry())
    letters = DeadLetters(None, metrics=metrics)
    letters.put(SUBJECT, b"", RefusedError(Refusal.NOT_JSON, "why"), NOW)
    assert (letters.buried, letters.dropped) == (0, 1)


@given(st.text(max_size=400), st.text(max_size=400), st.binary(max_size=100))
def test_headers_are_lines_of_printable_ascii_whatever_was_sent(subject, why, payload):
    office = Office()
    letters = DeadLetters(office, metrics=Metrics(CollectorRegistry()))
    letters.put(subject, payload, RefusedError(Refusal.NOT_JSON, why), NOW)
    ((_, _, headers),) = office.buried
    for value in headers.values():
        assert value
        assert value.isascii()
        assert value.isprintable()
        assert len(value) <= 1012
        assert value == value.strip()
