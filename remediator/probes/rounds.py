"""One look at one node: a single probe, or all kinds of probes at once; and what was learnt.

Whatever answers proves life: a refused connection too, since a kernel refused it. Silence is a
probe that got no answer in its time. Nothing is learnt from a probe that failed by our own fault:
no file descriptor left, forbidden by our own kernel, or a machine that stood still.

A late event loop alone makes nobody silent: an answer to TCP or ICMP waits in the kernel, and is
taken before the deadline that passed meanwhile. But a deadline that itself runs very late tells of
a machine that stood still, whose kernel may not have heard the answer either. HTTPS takes several
turns of ours, so there any lateness since it began will do.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from typing import Final, Literal, NamedTuple

import structlog

from remediator.clock import Clock
from remediator.metrics import METRICS, Metrics
from remediator.probe_settings import ADDRESS, ProbeSettings
from remediator.probes.dial import Dial
from remediator.probes.targets import Target

log = structlog.get_logger(__name__)

# A timer that runs later than this share of a probe's deadline makes the probe's silence ours.
LATE_SHARE: Final = 0.5

_OWN_FAULTS: Final = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,  # no local port left
        errno.EADDRINUSE,
        errno.EAGAIN,
        errno.EACCES,
        errno.EPERM,  # our own packet filter
        errno.EAFNOSUPPORT,  # a kernel without IPv6
        errno.EPROTONOSUPPORT,
        errno.EINVAL,
        errno.ENETDOWN,
    }
)


class Heard(enum.StrEnum):
    """What a probe, or a round of them, heard."""

    ANSWER = "answer"
    SILENCE = "silence"
    NOTHING = "nothing"  # nothing was learnt


class Kind(NamedTuple):
    """A kind of probe. ``port`` 0 is the kubelet's."""

    protocol: Literal["tcp", "icmp", "https"]
    port: int = 0
    url: str = ""

    def label(self, target: Target) -> str:
        """Return what it is called in a signal's detail: "tcp 10250", "icmp", "https 9443"."""
        if self.protocol == "tcp":
            return f"tcp {self.port or target.port}"
        if self.protocol == "https":
            return f"https {self.url.partition(ADDRESS)[2].lstrip(']')}".rstrip()
        return "icmp"


class Round(NamedTuple):
    """What came of a round; ``kind`` is what answered."""

    heard: Heard
    text: str
    kind: Kind | None = None


class Lateness:
    """When our own event loop was last seen late."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._late_at = float("-inf")
        self._by_s = 0.0

    def note(self, due_at: float, now: float) -> None:
        """Note that what was due at ``due_at`` ran ``now``."""
        if now - due_at > self._limit_s:
            self._late_at = now
            self._by_s = now - due_at

    def since(self, at: float) -> float:
        """Return by how many seconds it was late last, 0.0 if it has not been since ``at``."""
        return self._by_s if self._late_at >= at else 0.0


def kinds_of(settings: ProbeSettings) -> tuple[Kind, ...]:
    """Return the kinds of probes that are allowed, the cheapest first."""
    found = [Kind("tcp")] if settings.kubelet else []
    found += [Kind("tcp", port) for port in settings.ports]
    if settings.icmp:
        found.append(Kind("icmp"))
    return (*found, *(Kind("https", url=url) for url in settings.https))


class Rounds:
    """Tries the kinds of probes on a target. Nothing here raises but cancellation."""

    def __init__(
        self, dial: Dial, clock: Clock, settings: ProbeSettings, metrics: Metrics = METRICS
    ) -> None:
        self._dial = dial
        self._clock = clock
        self._deadline_s = settings.deadline_s
        self._kinds = kinds_of(settings)
        self._metrics = metrics
        self.lateness = Lateness(LATE_SHARE * settings.deadline_s)

    async def peaceful(self, target: Target, kind: Kind | None) -> Round:
        """Try the kind that answered last; all of them where that is not known."""
        if kind is None or kind not in self._kinds:
            return await self.every(target)
        return await self._try(kind, target)

    async def every(self, target: Target) -> Round:
        """Try all kinds at once, until one answers or all have failed."""
        if len(self._kinds) == 1:
            return await self._try(self._kinds[0], target)
        trying = {asyncio.ensure_future(self._try(kind, target)) for kind in self._kinds}
        pending = set(trying)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    if ended.result().heard is Heard.ANSWER:
                        return ended.result()
        finally:
            for one in pending:
                one.cancel()
            if pending:
                await asyncio.wait(pending)
        return self._sum_up([one.result() for one in trying])

    async def connect(self, address: str, port: int) -> Round:
        """Try a TCP connection to something that is no node."""
        return await self._try(Kind("tcp", port), Target("", address, port))

    def _sum_up(self, results: list[Round]) -> Round:
        """Return silence if all that could be tried met silence."""
        text = "; ".join(sorted(one.text for one in results if one.text))
        tried = [one for one in results if one.text]
        if tried and all(one.heard is Heard.SILENCE for one in tried):
            return Round(Heard.SILENCE, text)
        return Round(Heard.NOTHING, text or "no kind of probe is possible here")

    async def _try(self, kind: Kind, target: Target) -> Round:
        began_at = self._clock.now()
        label = kind.label(target)
        try:
            text = await self._knock(kind, target)
            heard = Heard.ANSWER
        except ConnectionRefusedError:
            heard, text = Heard.ANSWER, "refused"
        except ConnectionResetError as error:
            heard, text = Heard.ANSWER, _words(error)
        except TimeoutError:
            now, due_at = self._clock.now(), began_at + self._deadline_s
            self.lateness.note(due_at, now)
            late_s = self.lateness.since(began_at if kind.protocol == "https" else now)
            heard = Heard.NOTHING if late_s else Heard.SILENCE
            text = f"timeout, but we were {late_s:.1f} s late" if late_s else "timeout"
        except PermissionError as error:
            if kind.protocol == "icmp":
                self._give_up(kind, error)
                return Round(Heard.NOTHING, "")
            heard, text = Heard.NOTHING, _words(error)
        except OSError as error:
            heard = Heard.NOTHING if error.errno in _OWN_FAULTS else Heard.SILENCE
            text = _words(error)
        except Exception as error:  # noqa: BLE001 - a defect of a probe must not end the prober
            log.warning("probe_failed", node=target.node, kind=label, error=repr(error))
            heard, text = Heard.NOTHING, _words(error)
        self._metrics.probe(kind.protocol, heard.value)
        return Round(heard, f"{label}: {text}", kind if heard is Heard.ANSWER else None)

    async def _knock(self, kind: Kind, target: Target) -> str:
        deadline_s = self._deadline_s
        match kind.protocol:
            case "tcp":
                await self._dial.tcp(target.address, kind.port or target.port, deadline_s)
                return "answers"
            case "icmp":
                await self._dial.icmp(target.address, deadline_s)
                return "answers"
            case "https":
                host = f"[{target.address}]" if ":" in target.address else target.address
                url = kind.url.replace(ADDRESS, host)
                return f"status {await self._dial.https(url, deadline_s)}"

    def _give_up(self, kind: Kind, error: OSError) -> None:
        """Go on without ICMP, which takes a permission that this process may not have."""
        if kind in self._kinds:
            self._kinds = tuple(one for one in self._kinds if one != kind)
            log.warning(
                "icmp_not_permitted",
                error=_words(error),
                hint="net.ipv4.ping_group_range does not hold our group; going on without",
            )


def _words(error: Exception) -> str:
    """Return one short line about an error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error) or type(error).__name__)[:120]
