"""Who may speak on which plane.

This keeps mistakes out, not strangers: a name is only a claim. What keeps strangers out are the
permissions of NATS (docs/signals.md).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from remediator.engine.model import Plane, Subject
from remediator.signals.refusal import Refusal, RefusedError

# Evidence that our own watches and fence devices give. Another source here would be believed as
# much as the kubelet or the BMC itself, so each must be configured.
RESERVED: Final = frozenset({Plane.LEASE, Plane.KUBELET, Plane.HANDLER, Plane.POWER})


class KnownSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sources that are expected, and what they may speak of."""

    name: str  # shell pattern of ``source``
    planes: tuple[Plane, ...]
    subjects: tuple[str, ...] = ("*",)  # shell patterns: "node/worker-*", "vm/payments/*"


class SignalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which signals are let in."""

    require_known: bool = False  # True: on every plane only ``known`` sources and our own
    known: tuple[KnownSource, ...] = ()


class SignalSettingsError(ValueError):
    """A known source that can never speak; ``path`` names the setting, the text says why."""

    def __init__(self, path: tuple[str | int, ...], text: str) -> None:
        super().__init__(text)
        self.path = path


def check_settings(settings: SignalSettings) -> None:
    """Refuse what types cannot. Raises SignalSettingsError."""
    for number, known in enumerate(settings.known):
        for name in ("name", "planes", "subjects"):
            if not getattr(known, name):
                raise SignalSettingsError(("known", number, name), "is empty: it would match none")


class _Known:
    """One known source, its patterns compiled."""

    def __init__(self, settings: KnownSource) -> None:
        self._name = _compiled((settings.name,))
        self._subjects = _compiled(settings.subjects)
        self._planes = frozenset(settings.planes)

    def named(self, source: str) -> bool:
        return self._name.fullmatch(source) is not None

    def speaks(self, plane: Plane, subject: Subject) -> bool:
        return plane in self._planes and self._subjects.fullmatch(str(subject)) is not None


class Sources:
    """Judges sources other than this process itself."""

    def __init__(self, settings: SignalSettings) -> None:
        self._require_known = settings.require_known
        self._known = tuple(_Known(known) for known in settings.known)

    def judge(self, plane: Plane, source: str, subject: Subject) -> RefusedError | None:
        """Return why a source may not say this, None where it may."""
        named = [known for known in self._known if known.named(source)]
        if any(known.speaks(plane, subject) for known in named):
            return None
        if named:
            return RefusedError(
                Refusal.WRONG_SOURCE,
                f"signals.known does not let {source[:80]!r} speak of {subject} on plane {plane}",
            )
        if self._require_known or plane in RESERVED:
            return RefusedError(
                Refusal.UNKNOWN_SOURCE,
                f"plane {plane} is not open to {source[:80]!r}: it is not in signals.known",
            )
        return None


def _compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
