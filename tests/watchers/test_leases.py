"""The lease watch and its canary: a renewal is a change, and silence counts only when proven."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from structlog.testing import capture_logs

from remediator.engine.model import Plane, Reading
from remediator.sim.problems import too_many_requests
from remediator.sim.resources import LEASES

LEASE_NS = "kube-node-lease"


@pytest.fixture
async def quiet(cluster):
    await cluster.start()
    cluster.published.clear()
    return cluster


async def test_leases_found_at_start_are_first_beats(cluster):
    await cluster.start()
    beats = cluster.published.signals(Plane.LEASE)
    assert {b.subject.name for b in beats} == {"n1", "n2.example.com"}
    assert {(b.reading, b.first) for b in beats} == {(Reading.UP, True)}
    assert "remediator.heartbeat.lease.node.n2_example_com" in cluster.published.subjects


@pytest.mark.parametrize("skew_s", [0.0, 86_400.0, -86_400.0])
async def test_every_renewal_is_a_beat_at_our_time_whatever_the_nodes_clock_says(quiet, skew_s):
    quiet.renew("n1", skew_s=skew_s)
    now = quiet.clock.now()
    await asyncio.sleep(0.5)
    (signal,) = quiet.published.signals(Plane.LEASE)
    assert (signal.subject.name, signal.first) == ("n1", False)
    assert now <= signal.at < now + 0.5


async def test_a_change_of_the_lease_that_is_no_renewal_is_no_beat(quiet):
    def relabel(lease):
        lease["metadata"]["labels"] = {"a": "b"}

    quiet.store.mutate(LEASES, LEASE_NS, "n1", relabel)
    await asyncio.sleep(0.5)
    assert quiet.published.signals(Plane.LEASE) == []


async def test_a_lease_that_was_never_renewed_is_no_beat(quiet):
    metadata = {"name": "n3", "namespace": LEASE_NS}
    quiet.store.create(LEASES, {"metadata": metadata, "spec": {"holderIdentity": "n3"}})
    await asyncio.sleep(0.5)
    assert quiet.published.signals(Plane.LEASE) == []


async def test_the_watch_remembers_when_it_saw_a_renewal(quiet):
    found = quiet.watchers.last_beat("n1")
    assert found is not None
    assert found[1] == 0.0  # found at start: of unknown age
    quiet.renew("n1")
    now = quiet.clock.now()
    await asyncio.sleep(0.5)
    renew_time, changed_at = quiet.watchers.last_beat("n1")
    assert renew_time == quiet.store.get(LEASES, LEASE_NS, "n1")["spec"]["renewTime"]
    assert now <= changed_at < now + 0.5
    quiet.store.delete(LEASES, LEASE_NS, "n1")
    await asyncio.sleep(0.5)
    assert quiet.watchers.last_beat("n1") is None


async def test_renewals_made_while_the_watch_was_broken_are_beats(quiet):
    quiet.server.faults.reset()
    await asyncio.sleep(5)
    quiet.renew("n1")
    quiet.server.faults.gone()
    quiet.server.faults.clear()
    await asyncio.sleep(15)
    beats = quiet.published.signals(Plane.LEASE, "n1")
    assert [b.first for b in beats] == [False]


# --- the canary -----------------------------------------------------------------------------------


async def test_the_canary_comes_back_every_second_in_a_cluster_that_does_nothing(quiet):
    await asyncio.sleep(60)
    marks = quiet.published.progress("leases")
    gaps = [later - earlier for earlier, later in itertools.pairwise(marks)]
    assert 50 <= len(marks) <= 61
    assert max(gaps) < 2.5


async def test_the_canarys_own_beats_are_no_nodes_signal(quiet):
    await asyncio.sleep(10)
    assert quiet.canaries() == ["remediator-canary-pod-a"]
    assert quiet.published.signals() == []


async def test_silence_counts_up_to_the_write_of_the_canary_and_not_to_its_echo(cluster):
    cluster.server.faults.latency_s = 0.9
    await cluster.start(settle_s=20)
    written = []
    cluster.store.subscribe(LEASES, lambda *_: written.append(cluster.clock.now()))
    cluster.published.clear()
    await asyncio.sleep(30)
    marks = cluster.published.progress("leases")
    assert marks
    # Each mark is the moment at which a write was begun: before the server stored it.
    assert all(any(0 <= at - mark <= 1.0 for at in written) for mark in marks if mark > written[0])


@pytest.mark.parametrize("canary", [True, False])
async def test_after_a_stall_progress_is_told_only_after_the_beats_that_were_waiting(
    cluster, canary
):
    await cluster.start(cluster.daemon("pod-a", canary=canary))
    cluster.server.faults.hang()
    stalled_at = cluster.clock.now()
    await asyncio.sleep(3)
    cluster.renew("n1")
    cluster.renew("n2.example.com")
    await asyncio.sleep(5)
    cluster.published.clear()
    cluster.server.faults.clear()
    await asyncio.sleep(5)
    subjects = cluster.published.subjects
    progress = next(
        number
        for number, (subject, event, _) in enumerate(cluster.published.offers)
        if subject == "remediator.heartbeat.progress.watch.leases" and event.at > stalled_at
    )
    assert subjects.index("remediator.heartbeat.lease.node.n1") < progress
    assert subjects.index("remediator.heartbeat.lease.node.n2_example_com") < progress


async def test_while_the_api_server_refuses_writes_nobodys_silence_counts(quiet):
    """Kubelets cannot renew then either; events and bookmarks would say that all is well."""

    def read_only(request):
        if request.res is LEASES:
            raise too_many_requests("etcd has no space")

    quiet.store.add_admission(read_only)
    began_at = quiet.clock.now()
    await asyncio.sleep(300)
    assert all(at <= began_at for at in quiet.published.progress("leases"))


async def test_a_refused_canary_is_told_once_and_events_and_bookmarks_do(cluster):
    cluster.canary_refused = True
    with capture_logs() as lines:
        await cluster.start()
        cluster.published.clear()
        for _ in range(60):
            cluster.renew("n1")
            await asyncio.sleep(2)
    assert [line["event"] for line in lines].count("canary_refused") == 1
    marks = cluster.published.progress("leases")
    assert len(marks) >= 55
    assert max(b - a for a, b in itertools.pairwise(marks)) < 4


async def test_a_canary_that_is_allowed_later_is_taken_up(cluster):
    cluster.canary_refused = True
    await cluster.start()
    cluster.canary_refused = False
    await asyncio.sleep(70)
    cluster.published.clear()
    await asyncio.sleep(20)
    assert cluster.canaries() == ["remediator-canary-pod-a"]
    assert len(cluster.published.progress("leases")) >= 9


async def test_the_canary_is_deleted_at_a_clean_stop(cluster):
    task = await cluster.start()
    assert cluster.canaries() == ["remediator-canary-pod-a"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cluster.canaries() == []


async def test_the_canary_is_deleted_on_demotion_and_written_again_on_return(cluster):
    await cluster.start()
    cluster.watchers.follow()
    await asyncio.sleep(3)
    assert cluster.canaries() == []
    cluster.watchers.lead()
    await asyncio.sleep(3)
    assert cluster.canaries() == ["remediator-canary-pod-a"]


async def test_a_stop_while_the_api_server_hangs_takes_no_longer_than_a_request(cluster):
    task = await cluster.start()
    cluster.server.faults.hang()
    began_at = cluster.clock.now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cluster.clock.now() - began_at < 3


async def test_a_followers_watch_writes_no_canary(cluster):
    await cluster.start(lead=False, settle_s=10)
    assert cluster.canaries() == []
    assert cluster.published.offers == []


async def test_a_canary_deleted_by_somebody_is_made_again(quiet):
    quiet.store.delete(LEASES, LEASE_NS, "remediator-canary-pod-a")
    await asyncio.sleep(3)
    assert quiet.canaries() == ["remediator-canary-pod-a"]


async def test_another_replicas_canary_is_nobodys_beat_and_no_proof(cluster):
    metadata = {"name": "remediator-canary-pod-b", "namespace": LEASE_NS}
    cluster.store.create(LEASES, {"metadata": metadata, "spec": {"renewTime": None}})
    watchers = cluster.daemon("pod-a", canary=False)
    await cluster.start(watchers)
    cluster.published.clear()
    for _ in range(10):
        cluster.renew("remediator-canary-pod-b")
        await asyncio.sleep(1)
    assert cluster.published.signals() == []


async def test_the_canary_of_a_daemon_that_is_gone_is_swept(cluster):
    metadata = {"name": "remediator-canary-pod-z", "namespace": LEASE_NS}
    spec = {"renewTime": "2026-11-20T08:00:00.000000Z"}
    cluster.store.create(LEASES, {"metadata": metadata, "spec": spec})
    await cluster.start(settle_s=500)
    assert "remediator-canary-pod-z" in cluster.canaries()
    await asyncio.sleep(150)
    assert cluster.canaries() == ["remediator-canary-pod-a"]


@pytest.mark.parametrize("identity", ["Host_1.example.com", "x" * 300, "pod/a b"])
async def test_any_identity_makes_a_legal_name(cluster, identity):
    watchers = cluster.daemon(identity)
    await cluster.start(watchers)
    assert len(cluster.canaries()) == 1
