"""release-gates: every gate of ours goes, and nothing else of any pod changes."""

from __future__ import annotations

import pytest
from gated_cluster import OURS, THEIRS, GatedCluster

from remediator.admission.release import release_gates
from remediator.kube.errors import ApiError
from remediator.sim.resources import PODS


@pytest.fixture
def cluster() -> GatedCluster:
    made = GatedCluster()
    made.pod("shop/a", OURS)
    made.pod("shop/b", THEIRS, OURS)
    made.pod("shop/c", THEIRS)
    made.pod("shop/d")
    made.pod("shop/web", OURS, launcher=False)
    made.pod("team/e", OURS)
    return made


async def test_every_gate_of_ours_goes_and_no_other(cluster):
    held = await release_gates(cluster.client)
    assert [(each.vm, each.opened) for each in held] == [
        ("shop/a", True),
        ("shop/b", True),
        ("team/e", True),
    ]
    assert cluster.gates("shop/a") == cluster.gates("team/e") == []
    assert cluster.gates("shop/b") == cluster.gates("shop/c") == [THEIRS]
    assert cluster.gates("shop/web") == [OURS]  # not a launcher pod: none of ours


async def test_again_there_is_nothing_to_do(cluster):
    await release_gates(cluster.client)
    version = cluster.store.resource_version
    assert await release_gates(cluster.client) == []
    assert cluster.store.resource_version == version


async def test_one_namespace_alone(cluster):
    held = await release_gates(cluster.client, namespace="team")
    assert [each.vm for each in held] == ["team/e"]
    assert cluster.gates("shop/a") == [OURS]


async def test_a_dry_run_changes_nothing(cluster):
    version = cluster.store.resource_version
    held = await release_gates(cluster.client, dry_run=True)
    assert [each.opened for each in held] == [False, False, False]
    assert cluster.store.resource_version == version


async def test_a_gate_that_may_not_be_opened_is_reported_and_the_rest_goes_on(cluster):
    cluster.refused.add("virt-launcher-a")
    held = await release_gates(cluster.client)
    assert (held[0].vm, held[0].opened) == ("shop/a", False)
    assert "may not be changed" in held[0].why
    assert [each.opened for each in held[1:]] == [True, True]


async def test_a_pod_that_is_written_meanwhile_is_read_again(cluster, monkeypatch):
    real = cluster.client.patch
    touched: list[str] = []

    async def patch(path, patch, **how):
        if path not in touched:
            touched.append(path)
            name = path.rsplit("/", 1)[-1]
            namespace = path.split("/")[4]
            cluster.store.mutate(
                PODS, namespace, name, lambda pod: pod["metadata"].update(annotations={"x": "y"})
            )
        return await real(path, patch, **how)

    monkeypatch.setattr(cluster.client, "patch", patch)
    held = await release_gates(cluster.client)
    assert all(each.opened for each in held)
    assert len(touched) == 3


async def test_without_an_api_server_it_says_so(cluster):
    cluster.faults.too_many(1)
    cluster.client._transport._link._faults = cluster.faults
    with pytest.raises(ApiError):
        await release_gates(cluster.client)
