"""Whatever a stranger may put on the signal subjects, drawn from a seed.

A stranger knows the schema and what is sent by others, but not under which ``by`` the daemon knows
its own. It tells no lie that would be a valid signal: on the planes that are open to it, it says
"unknown", or what the town's vantage points have just said, with any time.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from twins import MHC, NODES, VANTAGES, Message, Town

RESERVED = ("lease", "kubelet", "handler", "power")
OPEN = ("machine", "storage")

NUMBERS = (0, -1, 5, 1e308, -1e-320, 2**63, 2**70)
TEXTS = ("", "x", "up", "n1", "\x00", "\u202e", "x" * 254, "é" * 300)
THINGS = ([], [[]], {}, {"kind": "node", "name": "n1"}, ["node", "n1"], None, True, False)
VALUES: tuple[Any, ...] = (*NUMBERS, *TEXTS, *THINGS)


class Garbage:
    """A generator of messages; ``overhear`` tells it what was really sent."""

    def __init__(self, seed: str, town: Town) -> None:
        self._rng = random.Random(seed)
        self._town = town
        self._heard: deque[Message] = deque(maxlen=3000)
        self._kinds: tuple[Callable[[], Message], ...] = (
            self._noise,
            self._garbled,
            self._spliced,
            self._mistyped,
            self._huge,
            self._repeated,
            self._repeated,
            self._misplaced,
            self._forged,
            self._odd_time,
            self._chatter,
            self._impostor,
            self._elsewhere,
        )

    def overhear(self, message: Message) -> None:
        self._heard.append(message)

    def draw(self) -> Message:
        return self._rng.choice(self._kinds)()

    # --- kinds of garbage -------------------------------------------------------------------------

    def _noise(self) -> Message:
        return self._real()[0], self._rng.randbytes(self._rng.randrange(300))

    def _garbled(self) -> Message:
        """A message of somebody's, a few of its bytes changed, lost or added."""
        subject, payload = self._foreign()
        garbled = bytearray(payload)
        for _ in range(self._rng.randint(1, 6)):
            at = self._rng.randrange(len(garbled) + 1)
            match self._rng.randrange(4):
                case 0:
                    garbled[at : at + 1] = self._rng.randbytes(1)
                case 1:
                    del garbled[at : at + self._rng.randint(1, 20)]
                case 2:
                    garbled[at:at] = self._rng.randbytes(self._rng.randint(1, 4))
                case _:
                    garbled[at : at + 1] = self._rng.choice(b'0123456789"{}[]:,.eE-\\ ').to_bytes()
        return subject, bytes(garbled)

    def _spliced(self) -> Message:
        """The head of one message and the tail of another, of planes that are not open."""
        (subject, one), (_, other) = self._of(RESERVED), self._of(RESERVED)
        cut = self._rng.randrange(len(one))
        return subject, one[:cut] + other[max(0, cut + self._rng.randint(-9, 9)) :]

    def _mistyped(self) -> Message:
        subject, payload = self._of(RESERVED)
        told = json.loads(payload)
        for _ in range(self._rng.randint(1, 3)):
            field = self._rng.choice([*told, "unknown"])
            match self._rng.randrange(3):
                case 0:
                    told.pop(field, None)
                case _:
                    told[field] = self._rng.choice(VALUES)
        return subject, json.dumps(told).encode()

    def _huge(self) -> Message:
        subject, payload = self._foreign()
        size = self._rng.choice((900, 9_000, 17_000, 60_000))
        match self._rng.randrange(4):
            case 0:
                return subject, payload[:-1] + b',"pad":"' + b"x" * size + b'"}'
            case 1:
                return subject, payload[:-1] + b',"pad":' + b"[" * size + b"]" * size + b"}"
            case 2:
                return subject, payload.replace(b'"detail":""', b'"detail":"' + b"y" * size + b'"')
            case _:
                return subject, payload[:-1] + b',"pad":' + b"9" * size + b"}"

    def _repeated(self) -> Message:
        """What was really sent a little while ago, once more and out of its order."""
        return self._real()

    def _misplaced(self) -> Message:
        """A right document on another's subject."""
        return self._real()[0], self._of(RESERVED)[1]

    def _forged(self) -> Message:
        """The opposite of the truth on the daemon's own planes."""
        subject, payload = self._of(RESERVED)
        told = json.loads(payload)
        told["reading"] = self._rng.choice(("up", "down", "unknown"))
        told["at"] = self._town.now + self._rng.uniform(-5, 5)
        told["by"] = self._rng.choice(("", "remediator", "f" * 12))
        return subject, json.dumps(told).encode()

    def _odd_time(self) -> Message:
        """What a vantage point says, but from the future, the past or anywhere.

        Not from a few seconds ahead: under a vantage point's own name that is no garbage, and its
        next words count as overtaken for five seconds (tests/signals/test_times.py).
        """
        node, vantage = self._rng.choice(NODES), self._rng.choice(VANTAGES)
        told = {
            "plane": "network",
            "source": vantage,
            "zone": vantage[:6],
            "subject": {"kind": "node", "name": node},
            "reading": self._town.told[node].value,
            "at": self._town.now
            + self._rng.choice((-0.5, -30, -700, -86_400, -1e9, 700, 86_400, 1e9)),
        }
        return f"remediator.heartbeat.network.node.{node}.{vantage}", json.dumps(told).encode()

    def _chatter(self) -> Message:
        """Programs with ever new names and aspects, who know nothing."""
        rng, plane, node = self._rng, self._rng.choice(OPEN), self._rng.choice(NODES)
        told = {
            "plane": plane,
            "source": f"program {rng.randrange(100)}",
            "subject": {"kind": "node", "name": node},
            "reading": "unknown",
            "at": self._town.now + rng.uniform(-100, 100),
            "aspect": f"aspect {rng.randrange(100)}",
            "by": rng.choice(("", "somebody")),
        }
        return f"remediator.signal.{plane}.node.{node}", json.dumps(told).encode()

    def _impostor(self) -> Message:
        """Under the name of one of the daemon's own sources on an open plane."""
        rng = self._rng
        told = {
            "plane": "machine",
            "source": MHC,
            "subject": {"kind": "node", "name": rng.choice(NODES)},
            "reading": rng.choice(("up", "down", "unknown")),
            "at": self._town.now + rng.uniform(-100, 1e6),
            "aspect": rng.choice(("instance-gone", "", "x")),
            "by": rng.choice(("", "somebody")),
        }
        subject = f"remediator.signal.machine.node.{told['subject']['name']}"
        return subject, json.dumps(told).encode()

    def _elsewhere(self) -> Message:
        """Anything on any subject of the streams that the engine follows."""
        rng = self._rng
        words = ("", "x", "node", "lease", "Node", "n1", "_", "a/b", "progress", "watch", "é", "*")
        head = rng.choice(("signal", "heartbeat", "inventory", "inventory.synced"))
        tail = ".".join(rng.choice((*words, "network", "power")) for _ in range(rng.randint(0, 6)))
        payload = self._real()[1].replace(b'"by":"0123456789ab"', b'"by":"somebody"')
        return f"remediator.{head}.{tail}", payload

    # --- what they are made of --------------------------------------------------------------------

    def _real(self) -> Message:
        return self._rng.choice(self._heard)

    def _foreign(self) -> Message:
        """A real message without the daemon's own name."""
        subject, payload = self._real()
        return subject, payload.replace(b"0123456789ab", b"")

    def _of(self, planes: tuple[str, ...]) -> Message:
        while True:
            subject, payload = self._foreign()
            if subject.split(".")[2] in planes and subject.startswith("remediator.") and payload:
                return subject, payload
