"""Records stay far below what NATS takes, with the inputs of their decisions."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine import chain
from remediator.engine.chain import DecisionKind

NATS_MAX = 1024 * 1024
NAME = "a-name-as-long-as-a-label-of-kubernetes-may-be-which-is-a-lot"  # 61 characters


@pytest.fixture
def storm(cluster):
    """A host with 500 VMs of long names, with three disks each, has lost its power."""
    claims = tuple(f"{NAME}-{number}" for number in range(3))
    for number in range(500):
        cluster.add_vm(f"{NAME}-{number:03}", "n1", claims=claims)
    cluster.lose("n1")
    cluster.run(30.0)
    return cluster


def test_a_plan_of_500_vms_fits_with_all_its_inputs(storm):
    planned = next(one for one in storm.decisions if one.kind is DecisionKind.PLANNED)
    size = len(chain.encode(planned))
    assert len(planned.plan.vms) == 500
    assert planned.inputs.omitted == ""
    assert size < chain.RECORD_MAX < NATS_MAX
    assert size < 450_000


def test_the_inputs_themselves_do_not_grow_with_the_vms(storm):
    for one in storm.decisions:
        bare = chain.encode(msgspec.structs.replace(one, inputs=None, guards=()))
        assert len(chain.encode(one)) - len(bare) < 8_000, one.kind
