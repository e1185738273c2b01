"""How the daemon itself is: readiness by part, and the gauges that change by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter

from remediator.api.app import Part
from remediator.bus.connection import BusConnection
from remediator.bus.publisher import Publisher
from remediator.clock import Clock
from remediator.journal.projector import Projector
from remediator.metrics import METRICS, Metrics
from remediator.own_health import WATCH_QUIET_S
from remediator.policy_reload import PolicyReload
from remediator.replica import Replica

MEASURE_EVERY_S = 5.0
_FAULTS_NAMED = 3


def readiness(
    replica: Replica, connection: BusConnection, projector: Projector, now: float
) -> dict[str, Part]:
    """Return how each part is. A follower is ready; a broken journal is not."""
    watches = replica.watchers.health()
    # A custom resource that RBAC forbids is said, and keeps nobody from serving.
    forbidden = [name for name, watch in watches.items() if watch.forbidden and watch.custom]
    behind = [
        name
        for name, watch in watches.items()
        if not (watch.synced or watch.absent) and name not in forbidden
    ]
    listed = f"not listed yet: {', '.join(behind)}" if behind else "all listed"
    quiet = [
        f"{name} {now - watch.last_progress_at:.0f} s"
        for name, watch in watches.items()
        if watch.synced and now - watch.last_progress_at > WATCH_QUIET_S
    ]
    broken = projector.broken_at
    role = "leads" if replica.elector.leader else f"follows {replica.elector.holder or 'nobody'}"
    return {
        "watches": Part(
            ok=not behind,
            detail=f"{listed}; forbidden: {', '.join(forbidden)}" if forbidden else listed,
        ),
        "watch-progress": Part(ok=not quiet, detail=", ".join(quiet) or "all hear", needed=False),
        "nats": Part(
            ok=connection.connected, detail="connected" if connection.connected else "away"
        ),
        "journal": Part(
            ok=broken is None,
            detail=f"projected up to {projector.progress.head.seq}"
            if broken is None
            else f"the chain is broken at record {broken}",
        ),
        "policies": policies_part(replica.policy_reload),
        "leader": Part(ok=True, detail=role, needed=False),
    }


def policies_part(reload: PolicyReload) -> Part:
    """Return what is in force, and what is refused: then the last good ones stay."""
    loaded, faults = f"{len(reload.policies)} in force", reload.faults
    if not faults:
        return Part(ok=True, detail=loaded, needed=False)
    told = "; ".join(fault.splitlines()[0] for fault in faults[:_FAULTS_NAMED])
    return Part(ok=False, detail=f"{loaded}; {len(faults)} refused: {told}", needed=False)


async def measure(
    replica: Replica,
    connection: BusConnection,
    publisher: Publisher,
    clock: Clock,
    metrics: Metrics = METRICS,
) -> None:
    """Keep the gauges true until cancelled."""
    counted: Counter[str] = Counter()
    while True:
        now = clock.now()
        metrics.leader.set(replica.elector.leader)
        metrics.nats_connected.set(connection.connected)
        metrics.policies.set(len(replica.policy_reload.policies))
        metrics.policy_faults.set(len(replica.policy_reload.faults))
        metrics.policies_loaded_at.set(replica.policy_reload.loaded_at)
        for name, watch in replica.watchers.health().items():
            if watch.synced:
                metrics.watch_lag.labels(name).set(max(0.0, now - watch.last_progress_at))
        metrics.incidents(
            Counter(each.state.value for each in replica.engine.state.incidents.values())
        )
        metrics.vm_incidents(
            Counter(
                (each.verdict.value, each.state.value)
                for each in replica.engine.state.vm_incidents.values()
            )
        )
        for name, counter, total in (
            ("published", metrics.nats_published, publisher.published),
            ("retried", metrics.nats_retried, publisher.retried),
            ("dropped", metrics.nats_dropped, publisher.dropped),
            ("unburied", metrics.dead_letters_lost, publisher.unburied),
        ):
            counter.inc(total - counted[name])
            counted[name] = total
        await asyncio.sleep(MEASURE_EVERY_S)
