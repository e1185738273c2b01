"""An intake whose clock a test moves, and an office that keeps what it buries."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry

from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.metrics import Metrics
from remediator.signals.dead_letters import DeadLetters
from remediator.signals.intake import Intake
from remediator.signals.sources import SignalSettings, Sources

NOW = 1_800_000_000.0
ORIGIN = "0123456789ab"
SUBJECT = "remediator.signal.machine.node.n1"


class FakeClock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> float:
        return self.at


class Office:
    def __init__(self) -> None:
        self.buried: list[tuple[str, bytes, dict[str, str]]] = []

    def bury(self, subject, payload, headers):
        self.buried.append((subject, payload, dict(headers)))


class Door:
    """The intake and all that it touches."""

    def __init__(self, settings: SignalSettings | None = None, *, origin: str = ORIGIN) -> None:
        self.clock = FakeClock()
        self.office = Office()
        self.metrics = Metrics(CollectorRegistry())
        self.dead_letters = DeadLetters(self.office, metrics=self.metrics)
        self.intake = Intake(
            self.clock,
            sources=Sources(settings or SignalSettings()),
            dead_letters=self.dead_letters,
            origin=origin,
            metrics=self.metrics,
        )

    def take(self, document, subject: str = SUBJECT):
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.intake.take(subject, payload)

    @property
    def reasons(self) -> list[str]:
        return [headers["Remediator-Reason"] for _, _, headers in self.office.buried]

    def metric(self, name: str, **labels: str) -> float:
        self.intake.tell_metrics()
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def document(**fields):
    """A signal of a stranger, as JSON has it."""
    return {
        "plane": "machine",
        "source": "hypervisor-watch",
        "subject": {"kind": "node", "name": "n1"},
        "reading": "down",
        "at": NOW,
        **fields,
    }


def signal(**fields) -> Signal:
    return Signal(
        **{
            "plane": Plane.MACHINE,
            "source": "hypervisor-watch",
            "subject": node_subject("n1"),
            "reading": Reading.DOWN,
            "at": NOW,
            **fields,
        }
    )
