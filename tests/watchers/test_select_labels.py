"""Which labels of Nodes are told, when fence configurations come to select by others."""

from __future__ import annotations

import asyncio

from remediator.engine.events import ObjectSeen
from remediator.engine.model import NodeFacts

ARCH = "beta.kubernetes.io/arch"


def told(cluster) -> list[dict[str, str]]:
    seen = [event.facts for event in cluster.published.events(ObjectSeen)]
    return [each.labels for each in seen if isinstance(each, NodeFacts)]


async def test_labels_that_are_selected_later_are_told_of_every_node_once_more(cluster):
    await cluster.start()
    assert all(ARCH not in labels for labels in told(cluster))
    cluster.published.clear()
    cluster.watchers.select_labels(frozenset({ARCH}))
    await cluster.until(lambda: len(told(cluster)) == 2)
    assert [labels[ARCH] for labels in told(cluster)] == ["amd64", "amd64"]


async def test_the_same_labels_again_tell_nothing(cluster):
    await cluster.start()
    cluster.watchers.select_labels(frozenset({ARCH}))
    await cluster.until(lambda: any(ARCH in labels for labels in told(cluster)))
    cluster.published.clear()
    cluster.watchers.select_labels(frozenset({ARCH}))
    for _ in range(50):
        await asyncio.sleep(0)
    assert told(cluster) == []


async def test_a_follower_tells_them_when_it_leads(cluster):
    await cluster.start(lead=False)
    cluster.watchers.select_labels(frozenset({ARCH}))
    assert told(cluster) == []
    cluster.watchers.lead()
    await cluster.until(lambda: len(told(cluster)) == 2)
    assert all(labels[ARCH] == "amd64" for labels in told(cluster))
