"""How many live migrations may be in flight: KubeVirt's own limits, ours where they are less."""

from __future__ import annotations

from remediator.engine.context import Context
from remediator.engine.incidents import Stage
from remediator.engine.model import Record, Subject, vm_subject


class Load(Record, frozen=True, kw_only=True):
    """Migrations in flight and what is allowed, in the cluster and off one node."""

    cluster: int
    cluster_limit: int
    node: int
    node_limit: int
    source: str  # who sets the limits

    @property
    def places(self) -> int:
        """How many more may be begun off this node."""
        return max(0, min(self.cluster_limit - self.cluster, self.node_limit - self.node))


def load(context: Context, node: str) -> Load:
    """Return how busy the cluster and this node are with migrations.

    Also those that wait in KubeVirt's queue count, whoever asked for them, and those of ours that
    KubeVirt has not made an object of yet: what is begun is never more than can be carried out.
    """
    inventory = context.inventory
    moving = {vm_subject(each.namespace, each.vmi) for each in inventory.migrations.values()}
    # KubeVirt makes another migration of these whenever one has failed.
    moving.update(vm_subject(namespace, name) for namespace, name in inventory.evacuating)
    for incident in context.state.incidents.values():
        for progress in incident.vms.values():
            if progress.stage in (Stage.MIGRATING, Stage.CANCELLING):
                moving.add(progress.plan.vm)
    off_node = sum(_leaves(context, vm, node) for vm in moving)
    settings = context.settings.evacuation
    cluster_limit, node_limit = settings.migrations_at_once, settings.migrations_at_once_node
    source = "settings"
    said = inventory.migration_limits
    if said is not None:
        source = f"KubeVirt {said.namespace}/{said.name}"
        cluster_limit = min(cluster_limit, said.at_once)
        node_limit = min(node_limit, said.at_once_node)
    return Load(
        cluster=len(moving),
        cluster_limit=cluster_limit,
        node=off_node,
        node_limit=node_limit,
        source=source,
    )


def _leaves(context: Context, vm: Subject, node: str) -> bool:
    """Whether a migrating VM leaves this node: also one that is over there, and not done yet."""
    incident = context.state.incident_on(f"node/{node}")
    if incident is not None and str(vm) in incident.vms:
        return True
    vmi = context.inventory.vmi(vm)
    return vmi is not None and vmi.node == node
