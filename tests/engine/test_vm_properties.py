"""VM incidents under any course of events: nothing crashes, and nothing untrue is concluded."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vm_world import NAMESPACE, VmWorld

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.inventory import Inventory
from remediator.engine.model import (
    FactKind,
    IncidentState,
    PodFacts,
    Reading,
    RunStrategy,
    Verdict,
    VmFacts,
    VmiFacts,
)
from remediator.engine.vm_evidence import VmEvidence
from remediator.engine.vm_verdicts import fitting

PHASES = ["", "Pending", "Scheduling", "Scheduled", "Running", "Running", "Failed", "Succeeded"]
STATUSES = [
    "",
    "Running",
    "Stopped",
    "Stopping",
    "CrashLoopBackOff",
    "ErrorUnschedulable",
    "ErrorPvcNotFound",
    "Provisioning",
    "Invented",
]
PAUSES = ["", "", "", "PausedByUser", "PausedByMigrationMonitor", "PausedIOError", "PausedNew"]
NODES = ["", "n1", "n2", "n3"]


def one_of_its(fields) -> st.SearchStrategy[dict]:
    """One field at a time: what stands long enough to be judged is seldom all at random."""
    return st.one_of([st.fixed_dictionaries({name: values}) for name, values in fields.items()])


VM_FIELDS = {
    "run_strategy": st.sampled_from(list(RunStrategy)),
    "status": st.sampled_from(STATUSES),
    "deleting": st.booleans(),
}
VMI_FIELDS = {
    "uid": st.sampled_from(["vmi-1", "vmi-2"]),
    "phase": st.sampled_from([*PHASES, "WaitingForSync", "Invented"]),
    "node": st.sampled_from(NODES),
    "owned": st.booleans(),
    "ready": st.booleans(),
    "not_ready_why": st.sampled_from(["", "PodTerminating", "GuestNotRunning"]),
    "agent_connected": st.booleans(),
    "agent_known": st.booleans(),
    "probes_muted": st.booleans(),
    "paused": st.sampled_from(PAUSES),
    "migrating_to": st.sampled_from(["", "", "n2"]),
    "deleting": st.booleans(),
}
POD_FIELDS = {
    "phase": st.sampled_from(["Pending", "Running", "Running", "Failed", "Succeeded"]),
    "node": st.sampled_from(NODES),
    "vmi_uid": st.sampled_from(["", "vmi-1", "vmi-2"]),
    "migration_target": st.booleans(),
    "deleting": st.booleans(),
    "grace_s": st.sampled_from([0.0, 30.0, 180.0]),
    "restarts": st.integers(0, 9),
    "waiting": st.sampled_from(["", "", "CrashLoopBackOff", "ImagePullBackOff", "Invented"]),
    "unschedulable": st.sampled_from(["", "", "0/3 nodes are available"]),
}
migration_fields = st.fixed_dictionaries(
    {"phase": st.sampled_from(["", "Pending", "Scheduling", "TargetReady", "Running", "Failed"])}
)
ASPECTS = ["readiness-probe", "liveness-probe", "panic", "watchdog", "attach", "invented"]
happening = st.one_of(
    st.tuples(st.just("vm"), one_of_its(VM_FIELDS)),
    st.tuples(st.just("vmi"), one_of_its(VMI_FIELDS)),
    st.tuples(st.just("vmi"), st.just({"agent_connected": False})),
    st.tuples(st.just("pod"), one_of_its(POD_FIELDS)),
    st.tuples(st.just("migration"), migration_fields),
    st.tuples(st.just("drop"), st.sampled_from(["vm", "vmi", "pod", "migration"])),
    st.tuples(
        st.just("signal"),
        st.tuples(
            st.sampled_from(ASPECTS),
            st.sampled_from(list(Reading)),
            st.booleans(),
            st.sampled_from([-1e12, -30.0, 0.0, 30.0, 1e12]),
        ),
    ),
    st.tuples(st.just("silence"), st.sampled_from(["n1", "n2"])),
    st.tuples(st.just("deafness"), st.booleans()),
)
step = st.tuples(happening, st.sampled_from([0, 1, 35, 70, 130, 320]))


class Witness(VmWorld):
    """Plays any course, and looks at the truth whenever something is said of the VM."""

    def __init__(self, cluster) -> None:
        super().__init__(cluster)
        self.judged = 0

    def play(self, steps) -> None:
        self.vm(status="Running")
        self.vmis["db"] = VmiFacts(namespace=NAMESPACE, name="db", uid="vmi-1")
        self.vmi(phase="Running", node="n1", ready=True, agent_connected=True, agent_known=True)
        self.pods["db"] = PodFacts(namespace=NAMESPACE, name="launcher", uid="p", vmi="db")
        self.pod(phase="Running", node="n1", vmi_uid="vmi-1")
        self.wait(301)
        for (what, argument), seconds in steps:
            getattr(self, f"do_{what}")(argument)
            self.look()
            self.wait(seconds)

    def look(self) -> None:
        for decision in self.cluster.decisions[self.judged :]:
            if decision.subject == self.subject():
                self.judge(decision)
        self.judged = len(self.cluster.decisions)

    def judge(self, decision: Decision) -> None:
        if decision.kind not in (DecisionKind.OPENED, DecisionKind.VERDICT):
            return
        vmi = self.vmis.get("db")
        verdict = decision.verdict
        if verdict in (Verdict.GUEST_SILENT, Verdict.PAUSED):
            assert vmi is not None
            assert vmi.phase == "Running", decision
            assert not vmi.migrating_to, decision
            assert not vmi.deleting, decision
            assert self.cluster.incident(vmi.node) is None, decision
        if verdict is Verdict.GUEST_SILENT:
            assert not vmi.probes_muted, decision
            assert not vmi.paused, decision
            told = any(
                row.plane == "probes" and row.value == "failing" for row in decision.evidence
            )
            assert told or (vmi.agent_known and not vmi.agent_connected), decision
        if verdict is Verdict.PAUSED:
            assert vmi.paused, decision
            assert not vmi.paused.startswith("PausedBy"), decision
        if verdict is not Verdict.STUCK:
            vm = self.vms.get("db")
            assert vm is None or vm.run_strategy is not RunStrategy.HALTED, decision

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.cluster.run(1)
            self.look()  # the truth is looked at in the second in which something was said of it

    def do_vm(self, fields: dict) -> None:
        self.vm(**fields)

    def do_vmi(self, fields: dict) -> None:
        self.vmis.setdefault("db", VmiFacts(namespace=NAMESPACE, name="db", uid="vmi-3"))
        self.vmi(**fields)

    def do_pod(self, fields: dict) -> None:
        self.pods.setdefault("db", PodFacts(namespace=NAMESPACE, name="l2", uid="p2", vmi="db"))
        self.pod(**fields)

    def do_migration(self, fields: dict) -> None:
        self.migration(**fields)

    def do_drop(self, kind: str) -> None:
        if "db" in getattr(self, f"{kind}s"):
            getattr(self, f"drop_{kind}")()

    def do_signal(self, told) -> None:
        aspect, reading, first, off_s = told
        self.signal(aspect, reading, first=first, at=self.cluster.now + off_s)

    def do_silence(self, node: str) -> None:
        self.cluster.silent ^= {node}

    def do_deafness(self, deaf: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        self.cluster.watching = not deaf


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(step, min_size=1, max_size=12))
def test_whatever_happens_the_engine_goes_on_and_says_nothing_untrue(make_cluster, steps):
    cluster = make_cluster(nodes=3)
    world = Witness(cluster)
    world.play(steps)
    heir = cluster.reborn()
    assert heir.engine.snapshot() == cluster.engine.snapshot()
    # One notice for each verdict that an incident was confirmed with, and none besides.
    confirmed = Counter(
        (each.incident, each.verdict)
        for each in world.records()
        if each.state is IncidentState.CONFIRMED and each.kind is not DecisionKind.RESOLVED
    )
    notices = [text for text in cluster.notices if text.split(":")[0] in OF_VMS]
    assert len(notices) == confirmed.total()
    # Its end leaves nothing behind.
    cluster.watching = True
    cluster.silent.clear()
    for kind in ("migration", "pod", "vmi", "vm"):
        world.do_drop(kind)
    for pod in cluster.engine.context.inventory.pods_under((NAMESPACE, "db")):
        world._drop(FactKind.POD, pod)
    cluster.run(700)
    assert cluster.engine.state.vm_incidents == {}
    assert cluster.engine.vms.suspects() == []


OF_VMS = {"GuestSilent", "Crashed", "Stuck", "Paused", "Unplaceable"}


@given(
    vm=st.fixed_dictionaries({}, optional=VM_FIELDS),
    vmi=st.fixed_dictionaries({}, optional=VMI_FIELDS),
    pod=st.fixed_dictionaries({}, optional=POD_FIELDS),
)
def test_a_vm_whose_objects_are_all_ordinary_needs_no_look(vm, vmi, pod):
    inventory = Inventory()
    evidence = VmEvidence(inventory)
    evidence.began_s = -1000.0
    objects = (
        msgspec.structs.replace(VmFacts(namespace="ns", name="db", uid="vm"), **vm),
        msgspec.structs.replace(VmiFacts(namespace="ns", name="db", uid="vmi-1"), **vmi),
        msgspec.structs.replace(PodFacts(namespace="ns", name="l", uid="p", vmi="db"), **pod),
    )
    for facts in objects:
        inventory.put(facts)
    rows = fitting(evidence.values(("ns", "db"), 0.0))
    if all(evidence.ordinary(facts) for facts in objects):
        # A pod that is not the VMI's own is looked at when the own one goes.
        assert [row.name for row in rows if row.name != "pod-gone"] == []
