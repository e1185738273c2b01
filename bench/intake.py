"""What one signal costs between NATS and the engine: decoding, every check, and a refusal."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from facts import node_name
from prometheus_client import CollectorRegistry
from table import Row

from remediator.clock import Clock
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.metrics import Metrics
from remediator.signals import wire
from remediator.signals.dead_letters import DeadLetters
from remediator.signals.intake import Intake
from remediator.signals.sources import SignalSettings, Sources

ORIGIN = "abcdef012345"
ROUNDS = 5  # the best of so many is told: the others measure the machine's other work, too
AIM_US = 10.0  # a tenth of a core at 10,000 signals a second

Message = tuple[str, bytes]


async def measure(nodes: int, beats: int) -> list[Row]:
    """Return microseconds a signal; ``beats`` of each node."""
    clock = Clock()
    ours = [
        _message(clock, turn, node, Plane.LEASE) for turn in range(beats) for node in range(nodes)
    ]
    probes = [
        _message(clock, turn, node, Plane.NETWORK) for turn in range(beats) for node in range(nodes)
    ]
    garbage = [(subject, payload[:-9]) for subject, payload in ours]
    group = f"intake, {nodes:,} nodes"
    decoding = _best(ours, lambda: lambda _subject, payload: wire.decode(payload))
    rows = [Row(group, "decoding alone", decoding, "us")]
    for name, messages in (
        ("own beats", ours),
        ("vantage points' readings", probes),
        ("refused: not JSON", garbage),
    ):
        took_us = _best(messages, lambda: _intake(clock).take)
        aim, met = f"<= {AIM_US:g} us", took_us <= AIM_US
        rows.append(Row(group, name, took_us, "us", took_us / decoding, "decoding alone", aim, met))
    return rows


def _intake(clock: Clock) -> Intake:
    metrics = Metrics(CollectorRegistry())
    return Intake(
        clock,
        sources=Sources(SignalSettings()),
        dead_letters=DeadLetters(None, metrics=metrics),
        origin=ORIGIN,
        metrics=metrics,
    )


def _messages(clock: Clock, nodes: int, beats: int, plane: Plane) -> list[Message]:
    return [_message(clock, turn, node, plane) for turn in range(beats) for node in range(nodes)]


def _message(clock: Clock, turn: int, node: int, plane: Plane) -> Message:
    ours = plane is Plane.LEASE
    signal = Signal(
        plane=plane,
        source="lease watch" if ours else "zone-a-0",
        subject=node_subject(node_name(node)),
        reading=Reading.UP,
        at=clock.now() + turn,
        zone="" if ours else "zone-a",
        detail="" if ours else "tcp 10250: answers in 0.4 ms",
        by=ORIGIN if ours else "",
    )
    # A text of its own for each message, as it comes from the wire: its hash is not known yet.
    subject = wire.subject_of(signal, beat=True).encode().decode()
    return subject, wire.encode(signal)


def _best(messages: list[Message], make: Callable[[], Callable[[str, bytes], object]]) -> float:
    best_s = float("inf")
    for _ in range(ROUNDS):
        take = make()
        gc.collect()
        gc.disable()
        began = time.process_time()
        for subject, payload in messages:
            take(subject, payload)
        best_s = min(best_s, time.process_time() - began)
        gc.enable()
    return best_s / len(messages) * 1e6
