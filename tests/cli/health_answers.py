"""Views to print: a cluster in trouble, one of its nodes, one of its VMs, and quiet ones."""

from __future__ import annotations

from remediator.engine.model import Verdict
from remediator.engine.views import (
    BudgetLine,
    ClusterView,
    Due,
    FacetLine,
    FittingRow,
    GuardLine,
    IncidentLine,
    LeaderLine,
    NodeLine,
    NodeView,
    OwnLine,
    PartLine,
    PlacedVm,
    PlaneLine,
    RowLine,
    SourceLine,
    Unheard,
    VantageLine,
    VmLine,
    VmView,
    WhatIf,
    ZoneLine,
)

AT = 1_795_144_327.25  # 2026-11-20 03:12:07 UTC
LEADER = LeaderLine(identity="remediator-0_4f1c", epoch=3, since_s=7500.0, mode="enforce")
TROUBLED = OwnLine(
    multiplier=4, reasons=("NATS answers after 3.2 s", "watches without progress: pods")
)
SUSPENDED = OwnLine(multiplier=8, suspended=True, reasons=("the event loop is late by 4.1 s",))

CLUSTER = ClusterView(
    at=AT,
    leader=LEADER,
    zone="",
    own=TROUBLED,
    unheard=(
        Unheard(what="watch pods", why="nothing heard for 190 s (limit 180 s)"),
        Unheard(what="watch longhorn-nodes", why="CRD not installed"),
        Unheard(what="watch portworx-nodes", why="CRD not installed"),
        Unheard(what="power", why="no fence method covers n05, n06"),
    ),
    vantages=(
        VantageLine(name="remediator-0", zone="zone-a", reading="up", fresh=True, age_s=1.2),
        VantageLine(
            name="probe-b", zone="zone-b", reading="unknown", fresh=True, age_s=0.4,
            detail="1 of 9 references answer",
        ),
        VantageLine(name="probe-c", zone="zone-c", reading="up", fresh=False, age_s=44.0),
    ),
    zones=(
        ZoneLine(zone="", nodes=1, verdicts={"Unknown": 1}),
        ZoneLine(zone="zone-a", nodes=4, verdicts={"Healthy": 2, "Dead": 1, "Suspect": 1}),
        ZoneLine(zone="zone-b", nodes=120, verdicts={"Healthy": 120}),
    ),
    nodes=(
        NodeLine(
            name="n02", zone="zone-a", verdict=Verdict.DEAD, row="power-off", since_s=4.25,
            incident="inc-17", state="fencing", vms=5,
            due=Due(what="fence is under way, attempt 1 (30 s)"),
        ),
        NodeLine(
            name="n03", zone="zone-a", verdict=Verdict.SUSPECT, row="lease-silent", since_s=1.0,
            incident="inc-19", state="suspected", vms=31,
            due=Due(what="its lease counts as lost, unless renewed", in_s=27.5),
        ),
        NodeLine(name="spare", zone="", verdict=Verdict.UNKNOWN, row="not-yet-seen"),
    ),
    nodes_more=2,
    suspicion=8.2,
    vms=1200,
    vm_verdicts={"Healthy": 1160, "Unknown": 36, "Stuck": 1, "stopped": 3},
    sick=(
        VmLine(
            namespace="payments", name="db", verdict=Verdict.STUCK, row="volume-blocked",
            node="n04", since_s=312.0, incident="inc-12 suspected",
            due=Due(what="Stuck is confirmed (volume-blocked)", in_s=48.0),
        ),
    ),
    sick_more=0,
    budgets=(
        BudgetLine(
            name="zone-share", scope="zone/zone-a", used=2, limit=2, of=4, spent=False,
            why="n02, n03",
        ),
        BudgetLine(
            name="cluster-share", scope="cluster", used=44, limit=42, of=125, spent=True,
            why="n02, n03, n40, n41, n42 and 39 more",
        ),
        BudgetLine(name="fences-at-once", scope="cluster", used=1, limit=2, of=125, spent=False),
    ),
)  # fmt: skip

QUIET = ClusterView(
    at=AT,
    leader=LEADER,
    zone="zone-b",
    own=OwnLine(),
    unheard=(),
    vantages=(),
    zones=(ZoneLine(zone="zone-b", nodes=120, verdicts={"Healthy": 120}),),
    nodes=(),
    nodes_more=0,
    suspicion=0.0,
    vms=1,
    vm_verdicts={"Healthy": 1},
    sick=(),
    sick_more=0,
    budgets=(),
)

NODE = NodeView(
    at=AT,
    leader=LEADER,
    own=SUSPENDED,
    name="n03",
    zone="zone-a",
    boot_id="12d45590-ca57-4128-b099-f69e53a66c0b",
    verdict=Verdict.SUSPECT,
    row=RowLine(
        name="lease-silent",
        verdict=Verdict.SUSPECT,
        means="the lease is silent; no second plane agrees yet",
    ),
    since_s=1.0,
    incident=IncidentLine(
        id="inc-19", state="held", verdict=Verdict.SUSPECT, row="lease-silent", since_s=1.0,
        opened_s=3.0, step="fence", proof="rebooted, from node status",
    ),
    hands_off="NodeMaintenance upgrade is at work",
    marks=("cordoned", "taints: remediator.io/fenced:NoSchedule"),
    suspicion=8.2,
    planes=(
        PlaneLine(
            plane="lease", value="silent", weighed=True,
            detail="not renewed for 13.0 of 12.1 s, renewed every 10.0 s",
            sources=(
                SourceLine(
                    plane="lease", source="lease watch", aspect="", reading="up", age_s=13.1
                ),
            ),
        ),
        PlaneLine(
            plane="network", value="unknown", weighed=False,
            sources=(
                SourceLine(
                    plane="network", source="probe-b", aspect="", reading="down", age_s=0.4,
                    since_s=9.0, detail="in zone-b; tcp 10250: timeout", counts=False,
                ),
                SourceLine(
                    plane="network", source="remediator-0", aspect="", reading="down", age_s=1.0,
                    since_s=8.5, detail="in zone-a; tcp 10250: timeout; icmp: timeout",
                ),
            ),
        ),
        PlaneLine(plane="storage", value="unknown", weighed=False),
        PlaneLine(
            plane="power", value="unknown", weighed=False,
            detail="no fence method is configured for it",
        ),
    ),
    settled="",
    what_if=(
        WhatIf(
            changes=("network down",), verdict=Verdict.UNREACHABLE, row="unreachable-by-network"
        ),
        WhatIf(changes=("lease up",), verdict=Verdict.HEALTHY, row="alive"),
        *(
            WhatIf(changes=(f"machine {n}", "power off"), verdict=Verdict.DEAD, row="power-off")
            for n in range(5)
        ),
    ),
    unasked=("storage", "power"),
    due=(
        Due(what="guard hands-off withholds the plan"),
        Due(what="its lease counts as lost, unless renewed", in_s=27.5),
        Due(what="virt-handler counts as silent, unless it beats", in_s=80.0),
    ),
    guards=(
        GuardLine(guard="hands-off", answer="wait", why="NodeMaintenance upgrade is at work"),
        GuardLine(guard="cool-down", answer="wait", why="fenced 20 s ago", in_s=580.0),
    ),
    vms=(
        PlacedVm(namespace="payments", name="db", state="Running, not ready (GuestNotRunning)",
                 verdict="Unknown"),
        PlacedVm(namespace="shop", name="web", state="recovery: up"),
    ),
    vms_more=29,
)  # fmt: skip

VM = VmView(
    at=AT,
    leader=LEADER,
    own=OwnLine(),
    namespace="payments",
    name="db",
    run_strategy="Always",
    verdict=Verdict.STUCK,
    row=RowLine(
        name="volume-blocked", verdict=Verdict.STUCK, means="one of its volumes cannot be attached"
    ),
    since_s=312.0,
    unjudged="",
    incident=IncidentLine(
        id="inc-12", state="suspected", verdict=Verdict.STUCK, row="volume-blocked",
        since_s=312.0, opened_s=312.0,
    ),
    node="n04",
    node_verdict="Healthy",
    node_incident="",
    parts=(
        PartLine(kind="VirtualMachine", name="db", state="Starting"),
        PartLine(kind="VMI", name="db", state="Scheduled", detail="on n04, not ready"),
        PartLine(kind="launcher pod", name="virt-launcher-db", state="Pending", detail="on n04"),
    ),
    facets=(
        FacetLine(facet="wanted", value="yes", weighed=True, well=True),
        FacetLine(facet="phase", value="scheduled", weighed=True, well=False, detail="on n04"),
        FacetLine(facet="volume", value="blocked", weighed=True, well=False,
                  detail="AttachVolume.Attach failed: still attached to n02"),
        FacetLine(facet="agent", value="unknown", weighed=False, well=False),
        FacetLine(facet="probes", value="up", weighed=False, well=True),
    ),
    fitting=(
        FittingRow(name="volume-blocked", verdict=Verdict.STUCK, stood_s=372.0,
                   suspected_after_s=60.0, confirmed_after_s=420.0),
    ),
    due=(Due(what="Stuck is confirmed (volume-blocked)", in_s=48.0),),
    what_if=tuple(f"volume {n}: no longer Stuck" for n in range(8)),
    cannot_move=("it does not run",),
    if_host_dies="restart: Always: KubeVirt makes a new VMI",
)  # fmt: skip
