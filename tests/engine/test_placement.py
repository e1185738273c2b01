"""Placement in small, hand-made clusters: each hard rule, each score, what is promised already."""

from __future__ import annotations

import msgspec

from remediator.engine import placement
from remediator.engine.context import Context
from remediator.engine.model import (
    ClaimFacts,
    FactKind,
    NodeFacts,
    NodeUseFacts,
    PodFacts,
    ReplicaSetFacts,
    VmFacts,
    VmiFacts,
    VolumeFacts,
    vm_subject,
)
from remediator.engine.placement import Placement, Unplaced
from remediator.engine.pod_rules import (
    HOSTNAME,
    ZONE,
    NodeTerm,
    PodNeeds,
    PodRules,
    PodTerm,
    Requirement,
    Spread,
    Toleration,
)
from remediator.engine.settings import EngineSettings

GIB = 2**30


class Asked(msgspec.Struct, frozen=True):
    vm: object


class Lab:
    """A picture that is put together by hand, and asked."""

    def __init__(self) -> None:
        self.context = Context(EngineSettings(), [], [], enforce=True)
        self.context.now = 1_000.0

    def node(self, name: str, **facts: object) -> None:
        given = {
            "uid": f"uid-{name}",
            "kubevirt": True,
            "zone": "",
            "cpu_m": 8000,
            "memory": 32 * GIB,
            "pods": 110,
            **facts,
        }
        self.context.inventory.put(NodeFacts(name=name, **given))

    def vm(
        self,
        name: str,
        *,
        node: str = "",
        namespace: str = "a",
        claims: tuple[str, ...] = (),
        cpu_m: int = 100,
        memory: int = GIB,
        extra: tuple[tuple[str, int], ...] = (),
        rules: PodRules | None = None,
        labels: dict[str, str] | None = None,
        group: str = "",
        phase: str = "Running",
    ) -> object:
        inventory = self.context.inventory
        inventory.put(VmFacts(namespace=namespace, name=name, uid=f"vm-{name}"))
        inventory.put(
            VmiFacts(namespace=namespace, name=name, uid=f"vmi-{name}", node=node, claims=claims)
        )
        needs = PodNeeds(cpu_m=cpu_m, memory=memory, extra=extra, rules=rules or PodRules())
        inventory.put(
            PodFacts(
                namespace=namespace,
                name=f"virt-launcher-{name}",
                uid=f"pod-{name}",
                node=node,
                vmi=name,
                phase=phase if node else "Pending",
                gated=not node,
                needs=needs,
                labels=labels or {},
                group=group,
            )
        )
        return vm_subject(namespace, name)

    def disk(self, claim: str, *, namespace: str = "a", **volume: object) -> None:
        inventory = self.context.inventory
        inventory.put(
            ClaimFacts(namespace=namespace, name=claim, uid=f"c-{claim}", volume=f"pv-{claim}")
        )
        inventory.put(VolumeFacts(name=f"pv-{claim}", uid=f"v-{claim}", **volume))

    def replicas(self, volume: str, *nodes: str, bad: tuple[str, ...] = ()) -> None:
        name = f"longhorn:{volume}"
        self.context.inventory.put(
            ReplicaSetFacts(name=name, uid=name, nodes=nodes, bad=bad, as_of=988.0)
        )

    def fits(self, *vms: object) -> list[Placement | Unplaced]:
        found = placement.fits(self.context, [Asked(vm) for vm in vms])
        return [found[vm] for vm in vms]

    def place(self, vm: object) -> Placement | Unplaced:
        return self.fits(vm)[0]


def refused(answer: Placement | Unplaced) -> dict[str, int]:
    return {each.filter: each.nodes for each in answer.refused}


def selector(**labels: str) -> PodRules:
    return PodRules(node_selector=tuple(labels.items()))


def only(key: str, *values: str) -> tuple[NodeTerm, ...]:
    return (NodeTerm(labels=(Requirement(key=key, values=values),)),)


def apart(key: str = HOSTNAME, **labels: str) -> PodTerm:
    return PodTerm(
        topology_key=key,
        selector=tuple(Requirement(key=each, values=(value,)) for each, value in labels.items()),
    )


def test_a_vm_goes_where_the_most_room_is_left():
    lab = Lab()
    lab.node("n1")
    lab.node("n2")
    lab.vm("old", node="n1", memory=8 * GIB)
    answer = lab.place(lab.vm("new"))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"
    assert answer.why == "97% of its room left"


def test_what_was_promised_in_the_same_plan_is_counted():
    lab = Lab()
    lab.node("n1", memory=5 * GIB)
    lab.node("n2", memory=3 * GIB)
    vms = [lab.vm(f"v{number}", memory=2 * GIB) for number in range(4)]
    answers = lab.fits(*vms)
    assert [getattr(each, "node", "") for each in answers] == ["n1", "n2", "n1", ""]
    last = answers[3]
    assert isinstance(last, Unplaced)
    assert last.why == "fits on no node: 2 memory"
    assert not last.stays


def test_a_small_vm_fits_behind_a_large_one_that_does_not():
    lab = Lab()
    lab.node("n1", memory=4 * GIB)
    large, small = lab.fits(lab.vm("large", memory=5 * GIB), lab.vm("small"))
    assert isinstance(large, Unplaced)
    assert isinstance(small, Placement)


def test_what_other_pods_take_is_taken():
    lab = Lab()
    lab.node("n1", cpu_m=1000)
    lab.context.inventory.put(NodeUseFacts(name="n1", uid="n1", cpu_m=950, pods=20))
    assert refused(lab.place(lab.vm("v"))) == {"cpu": 1}


def test_a_pod_that_ended_takes_nothing():
    lab = Lab()
    lab.node("n1", memory=GIB)
    lab.vm("old", node="n1", phase="Succeeded")
    assert isinstance(lab.place(lab.vm("new")), Placement)


def test_a_pod_that_left_gives_its_room_back():
    lab = Lab()
    lab.node("n1", memory=GIB)
    lab.vm("old", node="n1")
    new = lab.vm("new")
    assert isinstance(lab.place(new), Unplaced)
    lab.context.inventory.drop(FactKind.POD, "a", "virt-launcher-old", "pod-old")
    assert isinstance(lab.place(new), Placement)


def test_a_node_that_has_not_told_its_size_is_not_judged_by_it():
    lab = Lab()
    lab.node("n1", cpu_m=0, memory=0, pods=0)
    assert isinstance(lab.place(lab.vm("v", memory=999 * GIB)), Placement)


def test_hugepages_and_devices_must_be_there():
    lab = Lab()
    lab.node("n1", extra={"nvidia.com/gpu": 1})
    lab.node("n2")
    gpu = (("nvidia.com/gpu", 1),)
    first, second = lab.fits(lab.vm("v1", extra=gpu), lab.vm("v2", extra=gpu))
    assert isinstance(first, Placement)
    assert first.node == "n1"
    assert refused(second) == {"nvidia.com/gpu": 2}


def test_hard_rules_are_named_in_the_answer():
    lab = Lab()
    lab.node("n1", unschedulable=True)
    lab.node("n2", taints=("dedicated=gpu:NoSchedule",))
    lab.node("n3", kubevirt=False)
    lab.node("n4", schedulable=False)
    lab.node("n5")
    key = "cpu-model.node.kubevirt.io/Skylake"
    vm = lab.vm("v", rules=PodRules(node_selector=((key, "true"),)))
    assert refused(lab.place(vm)) == {
        "CPU model Skylake": 3,
        "cordoned": 1,
        "taint dedicated": 1,
    }


def test_tolerations_open_tainted_nodes():
    lab = Lab()
    lab.node("n1", taints=("dedicated=gpu:NoSchedule",))
    rules = PodRules(tolerations=(Toleration(key="dedicated", value="gpu"),))
    assert isinstance(lab.place(lab.vm("v", rules=rules)), Placement)
    wrong = PodRules(tolerations=(Toleration(key="dedicated", value="cpu"),))
    assert isinstance(lab.place(lab.vm("w", rules=wrong)), Unplaced)


def test_soft_taints_keep_nobody_away():
    lab = Lab()
    lab.node("n1", taints=("busy:PreferNoSchedule",))
    assert isinstance(lab.place(lab.vm("v")), Placement)


def test_silent_nodes_take_nobody_whatever_their_labels_say(monkeypatch):
    lab = Lab()
    lab.node("n1", ready=True)
    monkeypatch.setattr(lab.context.evidence, "overdue", lambda node: node == "n1")
    assert refused(lab.place(lab.vm("v"))) == {"silent": 1}


def test_anti_affinity_keeps_copies_apart():
    lab = Lab()
    for number in range(3):
        lab.node(f"n{number}")
    rules = PodRules(anti_affinity=(apart(app="db"),))
    lab.vm("db0", node="n0", labels={"app": "db"}, rules=rules)
    vms = [lab.vm(f"db{number}", labels={"app": "db"}, rules=rules) for number in (1, 2, 3)]
    answers = lab.fits(*vms)
    assert [getattr(each, "node", "") for each in answers] == ["n1", "n2", ""]
    assert refused(answers[2]) == {"anti-affinity": 3}


def test_those_that_are_there_may_keep_others_away():
    lab = Lab()
    lab.node("n1")
    lab.vm("loner", node="n1", rules=PodRules(anti_affinity=(apart(app="noisy"),)))
    assert refused(lab.place(lab.vm("v", labels={"app": "noisy"}))) == {
        "anti-affinity of others": 1
    }
    assert isinstance(lab.place(lab.vm("w", labels={"app": "quiet"})), Placement)


def test_zones_are_kept_apart_too():
    lab = Lab()
    lab.node("n1", zone="east")
    lab.node("n2", zone="east")
    lab.node("n3", zone="west")
    rules = PodRules(anti_affinity=(apart(ZONE, app="db"),))
    lab.vm("db0", node="n1", labels={"app": "db"}, rules=rules)
    answer = lab.place(lab.vm("db1", labels={"app": "db"}, rules=rules))
    assert isinstance(answer, Placement)
    assert answer.node == "n3"


def test_affinity_brings_together():
    lab = Lab()
    lab.node("n1")
    lab.node("n2")
    lab.vm("cache", node="n2", labels={"app": "cache"}, memory=20 * GIB)
    rules = PodRules(affinity=(apart(app="cache"),))
    answer = lab.place(lab.vm("web", rules=rules))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"
    assert refused(answer) == {}


def test_spread_holds_the_skew():
    lab = Lab()
    lab.node("n1", zone="east")
    lab.node("n2", zone="west", memory=2 * GIB)
    spread = Spread(
        topology_key=ZONE, max_skew=1, selector=(Requirement(key="app", values=("web",)),)
    )
    rules = PodRules(spread=(spread,))
    vms = [lab.vm(f"w{number}", labels={"app": "web"}, rules=rules) for number in range(6)]
    answers = lab.fits(*vms)
    placed = [each.node for each in answers if isinstance(each, Placement)]
    assert sorted(placed) == ["n1", "n1", "n1", "n2", "n2"]
    assert refused(answers[5]) == {"topology spread": 1, "memory": 1}


def test_the_least_of_all_disks_counts():
    lab = Lab()
    for number in range(1, 5):
        lab.node(f"n{number}")
    for disk in ("root", "data"):
        lab.disk(disk, driver="driver.longhorn.io", handle=disk)
    lab.replicas("root", "n1", "n2")
    lab.replicas("data", "n2", "n3")
    lab.vm("crowd", node="n2", memory=24 * GIB)
    answer = lab.place(lab.vm("v", claims=("root", "data")))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"
    assert answer.why.startswith(
        "replica on the node of all 2 disks (longhorn, unchanged for 12 s), 22% of its room left"
    )


def test_a_zone_with_replicas_is_better_than_one_without():
    lab = Lab()
    lab.node("n1", zone="east", memory=GIB)
    lab.node("n2", zone="east", memory=8 * GIB)
    lab.node("n3", zone="west")
    lab.disk("root", driver="driver.longhorn.io", handle="root")
    lab.replicas("root", "n1")
    lab.vm("crowd", node="n1")
    answer = lab.place(lab.vm("v", claims=("root",)))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"
    assert answer.why.startswith("replica in its zone of its disk")


def test_a_bad_replica_is_none():
    lab = Lab()
    lab.node("n1")
    lab.node("n2")
    lab.disk("root", driver="driver.longhorn.io", handle="root")
    lab.replicas("root", "n1", "n2", bad=("n1",))
    lab.vm("crowd", node="n2", memory=20 * GIB)
    answer = lab.place(lab.vm("v", claims=("root",)))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"


def test_a_volume_of_a_zone_stays_in_it():
    lab = Lab()
    lab.node("n1", zone="east")
    lab.node("n2", zone="west")
    lab.disk("root", driver="ebs.csi.aws.com", node_terms=only(ZONE, "east"))
    lab.vm("crowd", node="n1", memory=20 * GIB)
    answer = lab.place(lab.vm("v", claims=("root",)))
    assert isinstance(answer, Placement)
    assert answer.node == "n1"
    assert refused(answer) == {"volume's node affinity": 1}


def test_annotated_claims_have_replicas():
    lab = Lab()
    lab.node("n1")
    lab.node("n2")
    lab.context.inventory.put(
        ClaimFacts(namespace="a", name="root", uid="c", volume="pv", replica_nodes=("n2",))
    )
    lab.vm("crowd", node="n2", memory=20 * GIB)
    answer = lab.place(lab.vm("v", claims=("root",)))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"
    assert "annotation of claim root" in answer.why


def test_copies_of_one_application_spread_by_themselves():
    lab = Lab()
    lab.node("n1", memory=64 * GIB)
    lab.node("n2")
    lab.vm("web0", node="n1", group="web")
    answer = lab.place(lab.vm("web1", group="web"))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"


def test_boots_are_spread():
    lab = Lab()
    lab.node("n1")
    lab.node("n2", memory=31 * GIB)
    lab.vm("booting", node="n1", phase="Pending", memory=0, cpu_m=0)
    answer = lab.place(lab.vm("v"))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"


def test_a_migration_never_goes_to_its_own_node():
    lab = Lab()
    lab.node("n1")
    vm = lab.vm("v", node="n1")
    answer = placement.target(lab.context, vm, exclude=["n1"])
    assert isinstance(answer, Unplaced)
    assert refused(answer) == {"ruled out": 1}
    lab.node("n2")
    answer = placement.target(lab.context, vm, exclude=["n1"])
    assert isinstance(answer, Placement)
    assert answer.node == "n2"


def test_pods_that_need_the_same_share_one_copy_of_it():
    lab = Lab()
    rules = PodRules(node_selector=(("disk", "ssd"),))
    lab.vm("v1", rules=rules)
    lab.vm("v2", rules=PodRules(node_selector=(("disk", "ssd"),)))
    first, second = lab.context.inventory.pods.values()
    assert first.needs is second.needs
