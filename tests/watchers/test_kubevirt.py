"""What the KubeVirt object says about live migrations reaches the engine."""

from __future__ import annotations

from remediator.engine.model import MigrationLimitsFacts
from tests.kube import custom_examples as examples
from tests.watchers.custom_world import CustomWorld

KUBEVIRTS = "kubevirts.kubevirt.io"


async def test_the_limits_of_kubevirt_are_told_and_their_change(cluster):
    world = CustomWorld(cluster)
    world.install(KUBEVIRTS)
    kubevirt = examples.kubevirt(parallelMigrationsPerCluster=3)
    world.make(KUBEVIRTS, kubevirt)
    await world.start()
    (facts,) = world.published.facts(MigrationLimitsFacts)
    assert (facts.name, facts.at_once, facts.at_once_node) == ("kubevirt", 3, 2)
    world.put(KUBEVIRTS, examples.kubevirt(parallelOutboundMigrationsPerNode=1))
    await world.settle()
    assert world.published.facts(MigrationLimitsFacts)[-1].at_once_node == 1


async def test_without_a_kubevirt_object_nothing_is_told(cluster):
    world = CustomWorld(cluster)
    await world.start()
    assert world.published.facts(MigrationLimitsFacts) == []
