"""Whatever one plane alone says, and however long, nobody is fenced."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediator.engine.events import SignalSeen
from remediator.engine.model import (
    Plane,
    Reading,
    Signal,
    Subject,
    Verdict,
    node_subject,
    vantage_subject,
)
from remediator.engine.plane_values import INSTANCE_GONE
from tests.engine.conftest import Cluster

ASPECTS = {
    Plane.LEASE: ("",),
    Plane.KUBELET: ("", "Ready", "KernelDeadlock", "MemoryPressure"),
    Plane.HANDLER: ("", "pod"),
    Plane.NETWORK: ("",),
    Plane.STORAGE: ("", "volume"),
    Plane.POWER: ("",),
    Plane.MACHINE: ("", "phase", INSTANCE_GONE),
    Plane.GUEST: ("", "panic"),
}
CONVICTING = {Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED}

quiet = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
steps = st.lists(
    st.tuples(
        st.sampled_from(Reading),
        st.integers(0, 3),  # which aspect
        st.sampled_from(["s1", "s2", "s3"]),
        st.sampled_from([1, 5, 20, 70]),  # seconds until the next
        st.sampled_from([0.0, 0.0, 0.0, -600.0, 600.0, 1e9]),  # how wrong the source's clock is
        st.booleans(),  # whether the beats of this plane come
    ),
    min_size=1,
    max_size=12,
)


def say(
    cluster: Cluster,
    subject: Subject,
    plane: Plane,
    reading: Reading,
    *,
    source: str,
    aspect: str = "",
    skew_s: float = 0.0,
) -> None:
    signal = Signal(
        plane=plane,
        source=source,
        subject=subject,
        reading=reading,
        at=cluster.now + skew_s,
        aspect=aspect,
        zone=source if plane is Plane.NETWORK else "",
    )
    cluster.handle(SignalSeen(signal=signal))


def lives(cluster: Cluster) -> None:
    """The vantage points s1 to s3, each in a zone of its own, show that they live."""
    for name in ("s1", "s2", "s3"):
        say(cluster, vantage_subject(name), Plane.NETWORK, Reading.UP, source=name)


@pytest.mark.parametrize("plane", list(Plane))
@quiet
@given(steps)
def test_one_plane_alone_convicts_nobody(plane, steps):
    cluster = Cluster()
    cluster.lead()
    cluster.add_vm("db", "n1")
    for reading, which, source, seconds, skew_s, beats in steps:
        aspect = ASPECTS[plane][which % len(ASPECTS[plane])]
        if plane is Plane.NETWORK:
            lives(cluster)
        say(
            cluster,
            node_subject("n1"),
            plane,
            reading,
            source=source,
            aspect=aspect,
            skew_s=skew_s,
        )
        if plane is Plane.LEASE and not beats:
            cluster.silent.add("n1")
        elif plane is Plane.HANDLER and not beats:
            cluster.handler_silent.add("n1")
        else:
            cluster.silent.clear()
            cluster.handler_silent.clear()
        for _ in range(seconds):
            if plane is Plane.NETWORK:
                lives(cluster)
            cluster.run(1)
        incident = cluster.incident("n1")
        assert incident is None or incident.verdict not in CONVICTING, incident
    assert cluster.actions == []


def test_all_vantage_points_together_are_one_plane(make_cluster):
    cluster = make_cluster()
    cluster.add_vm("db", "n1")
    for _ in range(300):
        lives(cluster)
        for name in ("s1", "s2", "s3"):
            say(cluster, node_subject("n1"), Plane.NETWORK, Reading.DOWN, source=name)
        cluster.run(1)
    assert cluster.incident("n1").row == "network-silent"
    assert cluster.actions == []
