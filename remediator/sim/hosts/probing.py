"""The kubelet's readiness and liveness probes of one launcher pod, while they fail.

A probe that passes says nothing to anybody, so only failing ones are played: the guest's domain
says which (``Domain.failing``). The emulated VMs have both probes; one that never fails is as none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remediator.sim.hosts.domain import Domain
    from remediator.sim.hosts.pods import PodWorker

# Kubernetes' defaults for probes: periodSeconds, failureThreshold.
_PERIOD_S = 10.0
_FAILURES = 3
KINDS = ("readiness", "liveness")
_OUTPUT = "dial tcp {}:22: connect: connection refused"


class Probing:
    """Plays the failing probes of one pod."""

    def __init__(self, worker: PodWorker, ip: str) -> None:
        self._worker = worker
        self._output = _OUTPUT.format(ip)
        self._failing: set[str] = set()

    def look(self, domain: Domain) -> None:
        """Begin with the probes that fail by now."""
        for kind in KINDS:
            if kind in domain.failing and kind not in self._failing:
                self._failing.add(kind)
                self._worker.spawn(self._fail(kind, domain))

    async def _fail(self, kind: str, domain: Domain) -> None:
        failures = 0
        await self._worker.sleep(_PERIOD_S / 2)  # somewhere within the period
        while kind in domain.failing and domain.alive:
            failures += 1
            text = f"{kind.capitalize()} probe failed: {self._output}"
            self._worker.tell("Unhealthy", text)
            if failures == _FAILURES:
                if kind == "liveness":
                    self._worker.fail_liveness()
                    break
                await self._worker.set_ready(ready=False)
            await self._worker.sleep(_PERIOD_S)
        self._failing.discard(kind)
        if kind == "readiness" and failures >= _FAILURES and domain.alive:
            await self._worker.set_ready(ready=True)
