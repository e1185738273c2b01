"""Which VMs boot by themselves, and for how long they hold a place."""

from __future__ import annotations

from remediator.engine import boots
from remediator.engine.model import vm_subject


def test_a_boot_that_has_had_its_time_takes_no_place_anew(make_cluster):
    cluster = make_cluster()
    cluster.add_vm("x", "n2")
    cluster.drop_pods("x", "n2")
    cluster.place("x", "n2")
    context = cluster.engine.context
    cluster.run(2)
    assert boots.booting(context) == {vm_subject("ns", "x")}
    cluster.run(context.settings.pacing.start_timeout_s)
    for _ in range(30):
        cluster.run(1)
        assert boots.booting(context) == set(), "its volume may never attach"


def test_its_next_instance_boots_like_any_other(make_cluster):
    cluster = make_cluster()
    cluster.add_vm("x", "n2")
    cluster.drop_pods("x", "n2")
    cluster.place("x", "n2")
    context = cluster.engine.context
    cluster.run(context.settings.pacing.start_timeout_s + 5)
    cluster.drop_pods("x", "n2")
    cluster.place("x", "n2")
    cluster.run(2)
    assert boots.booting(context) == {vm_subject("ns", "x")}
