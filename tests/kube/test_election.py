"""One leader at a time, whatever breaks. All on virtual time.

The invariant that every test with two electors checks: no instant at which two of them work.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import asynccontextmanager

import msgspec
import pytest

from remediator.clock import Clock
from remediator.kube.client import KubeClient
from remediator.kube.election import ElectionSettings, LeaderElector
from remediator.kube.objects import parse_time
from tests.kube.scripted import Hang, Reset, ScriptedTransport, answer, on_virtual_time, status

EPOCH = 1_000_000_000.0


class LeaseServer:
    """Stores one Lease, guarded by resourceVersion; what befalls a caller is up to the test."""

    def __init__(self) -> None:
        self.lease = None
        self.version = 100
        self.writes = []
        self.trouble = {}  # identity -> a function of the call that returns an answer, or None

    def transport(self, identity):
        return ScriptedTransport(lambda call: self.answer(identity, call))

    def answer(self, identity, call):
        trouble = self.trouble.get(identity)
        said = trouble(call) if trouble is not None else None
        if said is not None:
            return said
        return self.apply(call)

    def apply(self, call):
        if call.method == "GET":
            return answer(self.lease) if self.lease else status(404, "NotFound")
        if call.method == "POST":
            if self.lease:
                return status(409, "AlreadyExists")
            return self._store(call)
        assert call.method == "PUT"
        if not self.lease:
            return status(404, "NotFound")
        if call.body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return status(409, "Conflict")
        return self._store(call)

    def _store(self, call):
        self.version += 1
        self.lease = msgspec.json.decode(msgspec.json.encode(call.body))
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        self.writes.append((call.at, self.lease["spec"]))
        return answer(self.lease)

    @property
    def spec(self):
        return self.lease["spec"]


class Team:
    """Electors and their work; remembers who worked from when to when."""

    def __init__(self, server=None) -> None:
        self.server = server or LeaseServer()
        self.working = set()
        self.most_at_once = 0
        self.history = []  # (time, identity, "starts" or "ends", epoch)
        self.tasks = {}

    def elector(self, identity, *, rate=1.0, **options):
        options.setdefault("settings", ElectionSettings())
        return LeaderElector(
            KubeClient(self.server.transport(identity)),
            namespace="remediator",
            name="leader",
            identity=identity,
            clock=RatedClock(rate),
            rng=random.Random(identity),
            **options,
        )

    def join(self, identity, *, work=None, **options):
        elector = self.elector(identity, **options)

        async def lead(epoch):
            self.working.add(identity)
            self.most_at_once = max(self.most_at_once, len(self.working))
            self.history.append((now(), identity, "starts", epoch))
            try:
                await (work(epoch) if work is not None else asyncio.Event().wait())
            finally:
                self.working.discard(identity)
                self.history.append((now(), identity, "ends", epoch))

        self.tasks[identity] = asyncio.create_task(elector.run(lead))
        return elector

    async def stop(self, identity):
        task = self.tasks[identity]
        task.cancel()
        await asyncio.wait({task})

    def starts(self):
        return [(identity, epoch) for _, identity, what, epoch in self.history if what == "starts"]

    def when(self, identity, what):
        return [at for at, who, did, _ in self.history if (who, did) == (identity, what)]


class RatedClock(Clock):
    """A clock that runs fast or slow."""

    def __init__(self, rate) -> None:
        super().__init__(epoch_at_start=EPOCH)
        self._rate = rate
        self._began_at = super().now()

    def now(self):
        return self._began_at + (super().now() - self._began_at) * self._rate


@asynccontextmanager
async def team(server=None):
    made = Team(server)
    try:
        yield made
        assert made.most_at_once <= 1, made.history
    finally:
        for task in made.tasks.values():
            task.cancel()
        if made.tasks:
            await asyncio.wait(made.tasks.values())


def now():
    return asyncio.get_running_loop().time()


def only(method, what):
    return lambda call: what if call.method == method else None


# --- ordinary life --------------------------------------------------------------------------------


@on_virtual_time
async def test_the_first_one_creates_the_lease_and_leads():
    async with team() as t:
        elector = t.join("a")
        assert not elector.leader
        await asyncio.sleep(0.5)
        assert elector.leader
        assert (elector.holder, elector.epoch) == ("a", 1)
        assert t.server.spec["holderIdentity"] == "a"
        assert t.server.spec["leaseDurationSeconds"] == 6
        assert t.server.spec["leaseTransitions"] == 1
        assert t.server.lease["metadata"]["name"] == "leader"


@on_virtual_time
async def test_the_leader_renews_and_the_others_wait():
    async with team() as t:
        first, second = t.join("a"), t.join("b")
        await asyncio.sleep(3600)
        assert t.starts() == [("a", 1)]
        assert first.leader
        assert not second.leader
        assert second.holder == "a"
        assert 3000 < len(t.server.writes) <= 3601


@on_virtual_time
async def test_a_follower_knows_that_another_leads_for_as_long_as_the_lease_is_renewed():
    async with team() as t:
        first, second = t.join("a"), t.join("b")
        assert not second.another_leads  # nothing was seen yet
        await asyncio.sleep(60)
        assert second.another_leads
        assert not first.another_leads
        t.server.trouble["a"] = lambda _call: status(503, "ServiceUnavailable")
        await asyncio.sleep(4)
        assert second.another_leads
        await asyncio.sleep(20)
        assert second.leader
        assert not second.another_leads


@on_virtual_time
async def test_a_clean_stop_ends_the_work_then_releases_and_the_next_need_not_wait():
    async with team() as t:
        t.join("a")
        await asyncio.sleep(0.5)
        t.join("b")
        await asyncio.sleep(10)
        stopped_at = now()
        await t.stop("a")
        assert t.tasks["a"].cancelled()
        assert t.when("a", "ends") == [stopped_at]
        assert t.server.spec["holderIdentity"] == ""
        await asyncio.sleep(1.3)
        assert t.starts() == [("a", 1), ("b", 2)]


@on_virtual_time
async def test_work_that_takes_long_to_stop_in_order_keeps_the_lease_meanwhile():
    async def slow(_epoch):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(9)  # an orderly end: ten seconds after SIGTERM

    async with team() as t:
        first = t.join("a", work=slow)
        t.join("b")
        await asyncio.sleep(10)
        t.tasks["a"].cancel()
        await asyncio.sleep(8)
        assert not first.leader, "it starts nothing new"
        assert t.working == {"a"}
        await asyncio.sleep(3)
        assert t.starts() == [("a", 1), ("b", 2)]


@on_virtual_time
async def test_a_second_cancellation_does_not_abandon_work_that_is_ending():
    async def slow(_epoch):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(2)

    async with team() as t:
        t.join("a", work=slow)
        await asyncio.sleep(1)
        t.tasks["a"].cancel()
        await asyncio.sleep(0.5)
        t.tasks["a"].cancel()
        await asyncio.sleep(0.5)
        assert not t.tasks["a"].done()
        await asyncio.sleep(3)
        assert t.tasks["a"].cancelled()
        assert t.when("a", "ends") == [3.0]


@on_virtual_time
async def test_everything_else_in_the_lease_is_kept():
    server = LeaseServer()
    server.lease = {
        "metadata": {
            "name": "leader",
            "resourceVersion": "7",
            "labels": {"app": "remediator"},
            "ownerReferences": [{"kind": "Deployment", "name": "d"}],
        },
        "spec": {
            "holderIdentity": "",
            "leaseTransitions": 41,
            "strategy": "OldestEmulationVersion",
        },
    }
    async with team(server) as t:
        t.join("a")
        await asyncio.sleep(5)
        assert t.starts() == [("a", 42)]
        assert server.lease["metadata"]["labels"] == {"app": "remediator"}
        assert server.lease["metadata"]["ownerReferences"]
        assert server.spec["strategy"] == "OldestEmulationVersion"


# --- the table of faults --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Reset(),
        Hang(),
        answer(b"<html><title>502 Bad Gateway</title></html>", 502),
        answer(b"<html>welcome</html>", 200),
        answer({"metadata": {}, "spec": {}}, 200),
        status(401, "Unauthorized"),
        status(500, "InternalError"),
    ],
    ids=["reset", "hang", "502 html", "200 html", "200 without version", "401", "500"],
)
@on_virtual_time
async def test_a_leader_that_cannot_renew_stops_at_its_deadline_and_the_next_starts_after(fault):
    async with team() as t:
        first = t.join("a")
        await asyncio.sleep(0.1)
        t.join("b")
        await asyncio.sleep(20)
        last_renewed_at = t.server.writes[-1][0]
        t.server.trouble["a"] = lambda _: fault
        await asyncio.sleep(20)
        assert t.when("a", "ends") == [pytest.approx(last_renewed_at + 4.0, abs=0.01)]
        (started_at,) = t.when("b", "starts")
        assert last_renewed_at + 6.0 <= started_at <= last_renewed_at + 8.5
        assert not first.leader
        assert t.starts() == [("a", 1), ("b", 2)]
        # and when the trouble is over, the old leader is a candidate like any other
        t.server.trouble.clear()
        await t.stop("b")
        await asyncio.sleep(2)
        assert t.starts()[-1] == ("a", 3)


@on_virtual_time
async def test_the_deadline_holds_even_if_a_transport_ignores_its_timeout(monkeypatch):
    async with team() as t:
        t.join("a")
        await asyncio.sleep(10)
        last_renewed_at = t.server.writes[-1][0]

        async def forever(*_args, **_kwargs):
            await asyncio.Event().wait()

        monkeypatch.setattr(ScriptedTransport, "request", forever)
        await asyncio.sleep(20)
        assert t.when("a", "ends") == [pytest.approx(last_renewed_at + 4.0, abs=0.01)]


@on_virtual_time
async def test_the_deadline_counts_from_when_the_renewal_was_sent_not_from_its_answer():
    async with team() as t:
        t.join("a")
        await asyncio.sleep(10)
        sent = []

        async def slowly(call):
            sent.append(call.at)
            said = t.server.apply(call)  # stored at once, so others count from here
            await asyncio.sleep(1.4)
            return said

        t.server.trouble["a"] = lambda call: slowly(call) if not sent else Reset()
        await asyncio.sleep(20)
        assert t.when("a", "ends") == [pytest.approx(sent[0] + 4.0, abs=0.01)]


@on_virtual_time
async def test_one_lost_request_ends_no_leadership():
    async with team() as t:
        t.join("a")
        await asyncio.sleep(10)
        lost = iter([Hang()])
        t.server.trouble["a"] = lambda _: next(lost, None)
        await asyncio.sleep(20)
        assert t.working == {"a"}
        assert t.starts() == [("a", 1)]


@on_virtual_time
async def test_leadership_ends_by_the_clock_alone_while_nothing_runs():
    async with team() as t:
        elector = t.join("a")
        await asyncio.sleep(10.2)
        assert elector.leader
        elector._clock._offset_s += 3600  # the process stood still for an hour
        assert not elector.leader


@on_virtual_time
async def test_work_that_crashes_releases_the_lease_and_is_raised():
    async def crash(_epoch):
        await asyncio.sleep(5)
        raise ZeroDivisionError("the engine")

    async with team() as t:
        t.join("a", work=crash)
        await asyncio.sleep(0.1)
        t.join("b")
        await asyncio.sleep(7)
        with pytest.raises(ZeroDivisionError):
            t.tasks["a"].result()
        assert t.starts() == [("a", 1), ("b", 2)]
        assert t.when("b", "starts")[0] < 6.5


@on_virtual_time
async def test_work_that_returns_releases_the_lease_and_lets_others_first():
    async def brief(_epoch):
        await asyncio.sleep(5)

    async with team() as t:
        t.join("a", work=brief)
        await asyncio.sleep(0.1)
        t.join("b")
        await asyncio.sleep(30)
        assert t.starts() == [("a", 1), ("b", 2)]
        assert not t.tasks["a"].done(), "it is a candidate again"


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_times_are_utc_whatever_the_zone(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert os.environ["TZ"] == zone

        @on_virtual_time
        async def check():
            async with team() as t:
                t.join("a")
                await asyncio.sleep(10)
                assert t.server.spec["renewTime"].endswith("Z")
                assert parse_time(t.server.spec["renewTime"]) == pytest.approx(EPOCH + 10, abs=1.1)
                assert parse_time(t.server.spec["acquireTime"]) == pytest.approx(EPOCH, abs=0.1)

        check()
    finally:
        monkeypatch.undo()
        time.tzset()


# --- two at a time --------------------------------------------------------------------------------


@on_virtual_time
async def test_of_many_that_start_at_once_one_leads():
    async with team() as t:
        for identity in "abcdefgh":
            t.join(identity)
        await asyncio.sleep(30)
        assert len(t.starts()) == 1


@on_virtual_time
async def test_of_two_that_claim_the_same_version_one_gets_a_conflict():
    server = LeaseServer()
    async with team(server) as t:
        t.join("dead")
        await asyncio.sleep(5)
        server.trouble["dead"] = lambda _: Reset()
        barrier = asyncio.Barrier(2)
        for identity in "ab":

            async def together(call):
                await barrier.wait()
                return server.apply(call)

            server.trouble[identity] = lambda call, together=together: (
                together(call) if call.method == "PUT" else None
            )
            t.join(identity)
        await asyncio.sleep(8.5)
        server.trouble["a"] = server.trouble["b"] = None
        await asyncio.sleep(20)
        assert len(t.starts()) == 2
        assert t.starts()[1][1] == 2


@on_virtual_time
async def test_a_leader_that_finds_another_holder_stops_at_once():
    async with team() as t:
        elector = t.join("a")
        await asyncio.sleep(10.5)
        t.server.version += 1
        t.server.lease["metadata"]["resourceVersion"] = str(t.server.version)
        t.server.spec.update(holderIdentity="usurper", leaseTransitions=2)
        await asyncio.sleep(1.1)
        assert t.working == set()
        assert elector.holder == "usurper"
        assert t.server.spec["holderIdentity"] == "usurper", "what is not ours is not released"


@on_virtual_time
async def test_somebody_elses_label_on_the_lease_ends_no_leadership():
    async with team() as t:
        t.join("a")
        for _ in range(20):
            await asyncio.sleep(0.7)
            t.server.version += 1
            t.server.lease["metadata"]["resourceVersion"] = str(t.server.version)
        assert t.starts() == [("a", 1)]
        assert t.working == {"a"}


@on_virtual_time
async def test_a_renewal_whose_answer_was_lost_is_recognised():
    async with team() as t:
        t.join("a")
        await asyncio.sleep(10)
        lost = iter([True])

        def store_and_hang(call):
            if call.method == "PUT" and next(lost, False):
                t.server.apply(call)
                return Hang()
            return None

        t.server.trouble["a"] = store_and_hang
        await asyncio.sleep(20)
        assert t.starts() == [("a", 1)]
        assert t.working == {"a"}


@on_virtual_time
async def test_a_claim_whose_answer_was_lost_is_recognised_and_claimed_again():
    async with team() as t:
        lost = iter([True])

        def store_and_hang(call):
            if call.method == "POST" and next(lost, False):
                t.server.apply(call)
                return Hang()
            return None

        t.server.trouble["a"] = store_and_hang
        t.join("a")
        await asyncio.sleep(4)
        assert t.starts() == [("a", 2)], "without waiting for its own lease to expire"


@on_virtual_time
async def test_our_name_in_a_record_that_we_did_not_write_is_somebody_else():
    server = LeaseServer()
    async with team(server) as t:
        t.join("same")
        await asyncio.sleep(10.5)
        twin = Team(server)  # misconfigured: the same identity twice
        twin.join("same")
        await asyncio.sleep(60)
        assert twin.starts() == []
        await twin.stop("same")


@on_virtual_time
async def test_a_lease_that_is_deleted_under_its_holder_is_not_created_at_once():
    async with team() as t:
        t.join("a")
        await asyncio.sleep(0.1)
        t.join("b")
        await asyncio.sleep(10)
        t.server.lease = None
        deleted_at = now()
        t.server.trouble["a"] = lambda _: Reset()  # the holder does not see it
        await asyncio.sleep(20)
        assert t.when("b", "starts")[0] >= deleted_at + 6.0


@on_virtual_time
async def test_a_holder_that_finds_its_lease_deleted_stops():
    async with team() as t:
        t.join("a")
        await asyncio.sleep(10.5)
        t.server.lease = None
        await asyncio.sleep(1.1)
        assert t.working == set()
        await asyncio.sleep(20)
        assert t.working == {"a"}


# --- clocks ---------------------------------------------------------------------------------------


@on_virtual_time
async def test_written_times_are_never_compared_with_a_clock():
    server = LeaseServer()
    server.lease = {
        "metadata": {"name": "leader", "resourceVersion": "1"},
        "spec": {
            "holderIdentity": "old",
            "leaseDurationSeconds": 6,
            "renewTime": "1999-01-01T00:00:00.000000Z",  # a holder whose clock is years off
            "leaseTransitions": 4,
        },
    }
    async with team(server) as t:
        t.join("b")
        await asyncio.sleep(5.9)
        assert t.starts() == [], "it was seen for the first time less than six seconds ago"
        await asyncio.sleep(2)
        assert t.starts() == [("b", 5)]


@on_virtual_time
async def test_a_record_that_asks_for_more_patience_gets_it_within_reason():
    for asked_s, expected_s in ((20, 20.0), (1_000_000, 60.0), (1, 6.0)):
        server = LeaseServer()
        server.lease = {
            "metadata": {"name": "leader", "resourceVersion": "1"},
            "spec": {"holderIdentity": "old", "leaseDurationSeconds": asked_s},
        }
        async with team(server) as t:
            began_at = now()
            t.join("b")
            await asyncio.sleep(70)
            assert expected_s <= t.when("b", "starts")[0] - began_at <= expected_s + 1.3


def scaled(settings, factor):
    """The same settings on a clock whose seconds are ``factor`` true seconds long."""
    values = {
        name: getattr(settings, name) * factor
        for name in ("lease_duration_s", "renew_deadline_s", "retry_period_s", "request_timeout_s")
    }
    return msgspec.structs.replace(settings, **values)


@pytest.mark.parametrize("skew", [0.01, 0.05])
@pytest.mark.parametrize("seed", range(20))
@on_virtual_time
async def test_a_slow_leader_has_stopped_before_a_fast_candidate_starts(skew, seed):
    # A loop has one clock, so the skew is put into the durations. Settings are checked before they
    # are scaled: what is configured is the same on both.
    defaults = ElectionSettings()
    slow = scaled(msgspec.structs.replace(defaults, clock_skew=0.0), 1 / (1 - skew))
    fast = scaled(msgspec.structs.replace(defaults, clock_skew=0.0), 1 / (1 + skew))

    async def stubborn(_epoch):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(defaults.stop_grace_s / (1 - skew))  # all the grace there is

    async with team() as t:
        t.join("slow", settings=slow, work=stubborn)
        await asyncio.sleep(0.01)
        t.join("fast", settings=fast)
        await asyncio.sleep(random.Random(seed).uniform(5, 10))

        def answer_old(call):
            if call.method == "GET":  # so that only the candidate's own clock counts
                document = msgspec.json.decode(msgspec.json.encode(t.server.lease))
                document["spec"]["leaseDurationSeconds"] = 1
                return answer(document)
            return None

        t.server.trouble["fast"] = answer_old
        t.server.trouble["slow"] = lambda _: Hang()
        await asyncio.sleep(30)
        assert [identity for identity, _ in t.starts()] == ["slow", "fast"]
        assert t.when("slow", "ends")[0] <= t.when("fast", "starts")[0]


@on_virtual_time
async def test_a_leaders_deadline_is_on_its_own_clock():
    async with team() as t:
        t.join("a", rate=0.5)
        await asyncio.sleep(10)
        last_renewed_at = t.server.writes[-1][0]
        t.server.trouble["a"] = lambda _: Reset()
        await asyncio.sleep(20)
        assert t.when("a", "ends") == [pytest.approx(last_renewed_at + 8.0, abs=0.02)]


# --- work that does not end -----------------------------------------------------------------------


@on_virtual_time
async def test_work_that_does_not_end_in_time_sounds_the_alarm_once_before_another_may_start():
    alarms = []
    release = asyncio.Event()

    async def deaf(_epoch):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with team() as t:
        first = t.join("a", work=deaf, overrun=lambda: alarms.append(now()))
        await asyncio.sleep(10)
        last_renewed_at = t.server.writes[-1][0]
        t.server.trouble["a"] = lambda _: Reset()
        await asyncio.sleep(20)
        assert not first.leader
        assert alarms == [pytest.approx(last_renewed_at + ElectionSettings().overrun_s, abs=0.01)]
        assert alarms[0] < last_renewed_at + 6.0 / 1.05
        assert t.working == {"a"}, "it is awaited, not abandoned"
        release.set()
        await asyncio.sleep(0.1)
        assert t.working == set()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lease_duration_s": 5.0}, "lease_duration_s 5 is too short"),
        ({"renew_deadline_s": 5.0}, "too short"),
        ({"stop_grace_s": 2.0}, "too short"),
        ({"clock_skew": 0.2}, "too short"),
        ({"request_timeout_s": 3.0}, "one unanswered request"),
        ({"retry_period_s": 0.0}, "more than 0"),
        ({"stop_grace_s": -1.0}, "more than 0"),
    ],
)
def test_settings_that_could_let_two_lead_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        ElectionSettings(**change)


def test_client_gos_settings_are_accepted():
    ElectionSettings(
        lease_duration_s=15.0, renew_deadline_s=10.0, retry_period_s=2.0, request_timeout_s=5.0
    )


@pytest.mark.parametrize("seed", range(30))
@on_virtual_time
async def test_whatever_befalls_them_never_do_two_work_and_in_the_end_one_does(seed):
    rng = random.Random(seed)

    def misfortune(call):
        roll = rng.random()
        if roll < level[0] * 0.3:
            return Reset()
        if roll < level[0] * 0.5:
            return Hang()
        if roll < level[0] * 0.6:
            return status(500, "InternalError")
        if roll < level[0] * 0.8:
            t.server.apply(call)  # done, and the answer lost
            return Hang()
        return None

    level = [0.0]
    async with team() as t:
        for identity in "abc":
            t.server.trouble[identity] = misfortune
            t.join(identity)
        for _ in range(40):
            level[0] = rng.choice([0.0, 0.3, 0.7, 1.0])
            await asyncio.sleep(rng.uniform(1, 12))
        level[0] = 0.0
        await asyncio.sleep(20)
        assert len(t.working) == 1
        epochs = [epoch for _, epoch in t.starts()]
        assert epochs == sorted(set(epochs)), "every leadership has a higher epoch"
        assert len(epochs) > 1, "this seed tested nothing"
