"""Who boots next: a fixed number of starts at once, per cluster and per healthy node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from remediator.engine.incidents import BOOTING_STAGES, Incident
from remediator.engine.inventory import Inventory
from remediator.engine.model import IncidentState, Subject
from remediator.engine.settings import PacingSettings


def booting(incidents: Iterable[Incident]) -> set[Subject]:
    """Return the VMs whose restart has begun and whose guest is not up yet.

    Only of recoveries under way: one that was stopped, its proof void, holds no places.
    """
    return {
        progress.plan.vm
        for incident in incidents
        if incident.state is IncidentState.RECOVERING
        for progress in incident.vms.values()
        if progress.stage in BOOTING_STAGES
    }


def starts_allowed(
    booting_now: set[Subject],
    inventory: Inventory,
    healthy_nodes: Iterable[str],
    settings: PacingSettings,
) -> int:
    """Return how many more restarts may begin now.

    Which node a VM will go to is the scheduler's choice, made after the start. So the limit per
    node counts the places left on each healthy node, of which the restarts that have no node yet
    are taken off.
    """
    on_node: Counter[str] = Counter()
    for subject in booting_now:
        vmi = inventory.vmi(subject)
        on_node[vmi.node if vmi is not None else ""] += 1
    healthy = set(healthy_nodes)
    unplaced = len(booting_now) - sum(on_node[node] for node in healthy)
    per_node = settings.starts_at_once_node
    places = sum(max(0, per_node - on_node[node]) for node in healthy) - unplaced
    return max(0, min(settings.starts_at_once_cluster - len(booting_now), places))
