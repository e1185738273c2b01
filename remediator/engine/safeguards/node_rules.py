"""The second half of each guard: the answer to what it saw, and to nothing else.

Records keep what was seen beside the answer, so that every answer can be asked again from its
record alone (guard_answers.py); this module must not read anything else, and its records stay
small.
"""

from __future__ import annotations

from remediator.engine.guard_answers import Answer, answers, grant, refuse, wait
from remediator.engine.incidents import OWN_NODE
from remediator.engine.model import Record


class ModeSeen(Record, frozen=True, kw_only=True):
    """Whether the daemon and the policy may act, and what would be done to what."""

    enforce: bool
    policy: str
    policy_enforces: bool
    steps: tuple[str, ...]
    what: str


@answers("mode", ModeSeen)
def mode(saw: ModeSeen) -> Answer:
    """Refuse where we only observe."""
    steps = ", ".join(saw.steps) or "act"
    if not saw.enforce:
        return refuse(f"observe mode: would {steps} {saw.what}")
    if not saw.policy_enforces:
        return refuse(f"policy {saw.policy} only observes: would {steps}")
    return grant("enforce")


class InventorySeen(Record, frozen=True, kw_only=True):
    """Whether all lists are complete."""

    lists: bool
    hands_off: bool


@answers("inventory", InventorySeen)
def inventory(saw: InventorySeen) -> Answer:
    """Wait for complete lists."""
    if not saw.lists:
        return wait("the lists of nodes, VMs and pods are not complete yet")
    if not saw.hands_off:
        return wait("whether somebody else works on a node is not known yet")
    return grant("complete")


class HandsOffSeen(Record, frozen=True, kw_only=True):
    """Who claims it, in words."""

    why: str


@answers("hands-off", HandsOffSeen)
def hands_off(saw: HandsOffSeen) -> Answer:
    """Wait while it is somebody else's business."""
    return wait(saw.why) if saw.why else grant("nobody claims it")


class PausedSeen(Record, frozen=True, kw_only=True):
    """Who has paused it, in words, and when that ends by itself."""

    why: str
    until: float | None


@answers("paused", PausedSeen)
def paused(saw: PausedSeen) -> Answer:
    """Wait while it is paused."""
    return wait(saw.why, saw.until) if saw.why else grant("not paused")


class VmsSeen(Record, frozen=True, kw_only=True):
    """How many VMs are on the node."""

    count: int


@answers("vms", VmsSeen)
def vms(saw: VmsSeen) -> Answer:
    """Wait where nothing would be won."""
    if not saw.count:
        return wait("no VM is on this node: nothing would be won by fencing it")
    return grant(f"{saw.count} VMs to recover")


class MethodSeen(Record, frozen=True, kw_only=True):
    """How the node would be fenced."""

    fences: bool
    node: str
    method: str
    levels: int  # that give a proof which the policy takes
    required: tuple[str, ...]


@answers("fence-method", MethodSeen)
def fence_method(saw: MethodSeen) -> Answer:
    """Refuse a fence that nothing can carry out, or that would prove nothing."""
    if not saw.fences:
        return grant("the plan does not fence")
    if not saw.method:
        return refuse(f"no fence method is configured for {saw.node}")
    if not saw.levels:
        taken = ", ".join(saw.required) or "none"
        return refuse(f"no level of {saw.method} gives a proof that the policy takes here: {taken}")
    return grant(saw.method)


class OwnNodeSeen(Record, frozen=True, kw_only=True):
    """Whether this leader runs on the node, and whether it gave leadership up for that."""

    ours: bool
    yielded: bool


@answers(OWN_NODE, OwnNodeSeen)
def own_node(saw: OwnNodeSeen) -> Answer:
    """Wait for another leader."""
    if not saw.ours:
        return grant("another node than the leader's")
    if saw.yielded:
        return wait(
            "it runs this leader, and no other replica took over: start one on another node"
        )
    return wait("it runs this leader: another replica must lead before it is fenced")


class ReplicasSeen(Record, frozen=True, kw_only=True):
    """The first partner of the node's replicas that is being recovered, if any."""

    fences: bool
    partner: str = ""
    volume: str = ""  # that both hold a replica of; "" where a label says that they belong together
    replica_set: str = ""


@answers("storage-replicas", ReplicasSeen)
def storage_replicas(saw: ReplicasSeen) -> Answer:
    """Wait for the partner that holds the other replica."""
    if not saw.fences:
        return grant("the plan does not fence")
    if saw.partner and saw.volume:
        held = f"{saw.partner}, which holds a replica of {saw.volume} as well"
        return wait(f"{held}, is being recovered")
    if saw.partner:
        return wait(f"{saw.partner} of replica set {saw.replica_set} is being recovered")
    return grant("no partner of its replicas is being recovered")


class TrustSeen(Record, frozen=True, kw_only=True):
    """Whether the node's BMC has lied in this incident."""

    contradicted: bool
    fences: bool


@answers("power-trust", TrustSeen)
def power_trust(saw: TrustSeen) -> Answer:
    """Refuse to believe a liar."""
    if saw.contradicted and saw.fences:
        return refuse("its BMC said off while it lived: it proves nothing")
    return grant("never contradicted")


class FencesSeen(Record, frozen=True, kw_only=True):
    """The fences under way."""

    limit: int
    running: tuple[str, ...]


@answers("fences-at-once", FencesSeen)
def fences_at_once(saw: FencesSeen) -> Answer:
    """Wait for a place."""
    text = f"{len(saw.running)} of {saw.limit} under way"
    if len(saw.running) >= saw.limit:
        return wait(f"{text}: {', '.join(saw.running)}")
    return grant(text)


class ShareSeen(Record, frozen=True, kw_only=True):
    """How many of some nodes are or may be down."""

    placed: bool  # False: the node is in no zone
    down: int
    named: tuple[str, ...]  # the first of these
    among: int
    limit: int
    now: float
    calm_at: float  # until then it counts as crowded: it was a moment ago


def _share(saw: ShareSeen) -> Answer:
    if not saw.placed:
        return grant("the node is in no zone")
    text = f"{saw.down} of {saw.among} nodes down or silent, limit {saw.limit}"
    if saw.down > saw.limit:
        return wait(f"{text}: {', '.join(saw.named)}")
    if saw.now < saw.calm_at:
        # What came back first is seldom alone: the others get their time to follow.
        return wait(f"{text}; it was past it a moment ago: others may be back soon", saw.calm_at)
    return grant(text)


@answers("zone-share", ShareSeen)
def zone_share(saw: ShareSeen) -> Answer:
    """Wait while too much of the zone is down."""
    return _share(saw)


@answers("cluster-share", ShareSeen)
def cluster_share(saw: ShareSeen) -> Answer:
    """Wait while too much of the cluster is down."""
    return _share(saw)


class ScopeHeard(Record, frozen=True, kw_only=True):
    """Who of a zone or of the cluster was not heard since the node fell silent."""

    scope: str
    among: int
    missing: int
    named: tuple[str, ...]  # the first of these
    down: int
    limit: int


class OthersSeen(Record, frozen=True, kw_only=True):
    """Who else may have fallen silent with the node."""

    matters: bool  # something that may live would be powered off
    scopes: tuple[ScopeHeard, ...] = ()


@answers("others-heard", OthersSeen)
def others_heard(saw: OthersSeen) -> Answer:
    """Wait until it is known how many fell silent together."""
    if not saw.matters:
        return grant("nothing that may live is powered off")
    for scope in saw.scopes:
        if scope.missing and scope.down + scope.missing > scope.limit:
            return wait(
                f"{scope.missing} of {scope.among} nodes of {scope.scope} were not heard since it "
                f"fell silent, they may be down with it: {', '.join(scope.named)}"
            )
    return grant("enough others were heard since it fell silent")
