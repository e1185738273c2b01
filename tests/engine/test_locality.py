"""Where a VM's data is, by each kind of storage, and what is said when it is nowhere else."""

from __future__ import annotations

import pytest
from test_placement import Lab, only, refused

from remediator.engine import locality
from remediator.engine.locality import Kind
from remediator.engine.model import ClaimFacts, ReplicaSetFacts
from remediator.engine.placement import Placement, Unplaced
from remediator.engine.pod_rules import HOSTNAME


def replicas(lab: Lab, name: str, *nodes: str, bad: tuple[str, ...] = (), as_of: float = 0.0):
    facts = ReplicaSetFacts(name=name, uid=name, nodes=nodes, bad=bad, as_of=as_of)
    lab.context.inventory.put(facts)


def disk(lab: Lab, **volume: object) -> locality.Locality:
    lab.disk("root", **volume)
    (found,) = locality.of_vm(lab.context.inventory, "a", ("root",))
    return found


@pytest.mark.parametrize(
    ("driver", "storage"),
    [
        ("driver.longhorn.io", "longhorn"),
        ("linstor.csi.linbit.com", "linstor"),
        ("pxd.portworx.com", "portworx"),
        ("io.openebs.csi-mayastor", "mayastor"),
    ],
)
def test_replicated_storage_is_found_by_driver_and_handle(driver, storage):
    lab = Lab()
    replicas(lab, f"{storage}:h1", "n1", "n2", bad=("n2",), as_of=900.0)
    found = disk(lab, driver=driver, handle="h1")
    assert (found.kind, found.nodes, found.source, found.as_of) == (
        Kind.REPLICATED,
        ("n1",),
        storage,
        900.0,
    )


def test_portworx_from_before_csi_is_found_too():
    lab = Lab()
    replicas(lab, "portworx:7", "n1")
    assert disk(lab, source="portworx_volume", handle="7").nodes == ("n1",)


def test_replicated_storage_that_tells_nothing_is_not_known():
    assert disk(Lab(), driver="pxd.portworx.com", handle="7").kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    "volume",
    [
        {"driver": "rook-ceph.rbd.csi.ceph.com"},
        {"driver": "cephfs.csi.ceph.com"},
        {"driver": "nfs.csi.k8s.io"},
        {"source": "nfs"},
        {"source": "iscsi"},
    ],
)
def test_network_storage_is_anywhere(volume):
    assert disk(Lab(), **volume).kind is Kind.ANYWHERE


def test_bad_replicas_are_better_than_none():
    lab = Lab()
    replicas(lab, "longhorn:h1", "n1", "n2", bad=("n1", "n2"))
    assert disk(lab, driver="driver.longhorn.io", handle="h1").nodes == ("n1", "n2")


def test_linstor_may_pin_its_volumes_by_node_affinity_as_well():
    lab = Lab()
    lab.node("n1", labels={"linbit.com/hostname": "n1"})
    lab.node("n2", labels={"linbit.com/hostname": "n2"})
    replicas(lab, "linstor:h1", "n2")
    terms = only("linbit.com/hostname", "n2")
    lab.disk("root", driver="linstor.csi.linbit.com", handle="h1", node_terms=terms)
    answer = lab.place(lab.vm("v", claims=("root",)))
    assert isinstance(answer, Placement)
    assert answer.node == "n2"
    assert refused(answer) == {"volume's node affinity": 1}


def test_what_was_asked_says_when():
    lab = Lab()
    lab.node("n1")
    replicas(lab, "portworx:7", "n1", as_of=lab.context.now - 3_600 * 3)
    lab.disk("root", driver="pxd.portworx.com", handle="7")
    answer = lab.place(lab.vm("v", claims=("root",)))
    assert "replica on the node of its disk (portworx, asked 3 h ago)" in answer.why


@pytest.mark.parametrize("kind", ["local", "replicated", "annotated"])
def test_a_vm_whose_only_copy_is_on_a_lost_host_stays(kind, monkeypatch):
    lab = Lab()
    lab.node("n1")
    lab.node("n2")
    monkeypatch.setattr("remediator.engine.placement.lost", lambda _context: frozenset({"n1"}))
    monkeypatch.setattr("remediator.engine.placement.unable", lambda _context: {"n1": "lost"})
    if kind == "local":
        lab.disk("root", source="local", pinned_to=("n1",), node_terms=only(HOSTNAME, "n1"))
    elif kind == "replicated":
        lab.disk("root", driver="driver.longhorn.io", handle="h1")
        replicas(lab, "longhorn:h1", "n1", "n2", bad=("n2",))
    else:
        claim = ClaimFacts(
            namespace="a", name="root", uid="c", volume="pv-root", replica_nodes=("n1",)
        )
        lab.context.inventory.put(claim)
    answer = lab.place(lab.vm("v", claims=("root",)))
    assert isinstance(answer, Unplaced)
    assert answer.stays
    assert answer.why.startswith("cannot move: the only copy of pv-root is on n1 (")


def test_the_plan_for_a_dead_host_knows_the_only_good_replica():
    lab = Lab()
    lab.disk("root", driver="driver.longhorn.io", handle="h1")
    replicas(lab, "longhorn:h1", "n1", "n2", bad=("n2",))
    inventory = lab.context.inventory
    assert locality.only_copy(inventory, "a", ("root",), "n1") == "pv-root"
    assert locality.only_copy(inventory, "a", ("root",), "n2") == ""
