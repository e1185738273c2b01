"""``remediator simulate``: what it prints, that a seed repeats it, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import structlog

from remediator.cli.simulate import BUILT_IN
from remediator.cli.simulate_text import text_of
from remediator.exit_codes import ExitCode
from remediator.rehearsal.built_in import SHIPPED
from remediator.rehearsal.course import Course, HostCourse, Line, Moment, Recovery

GOLDEN = Path(__file__).with_name("golden")
NO_PROOF = """
apiVersion: remediator.io/v1alpha1
kind: RemediationPolicy
metadata: {name: trusting-nobody}
spec:
  verdicts: [Dead, Unreachable]
  requiredProof: [rebooted, instance-gone]
"""
SMALL = ("--nodes", "6", "--vms", "12")


@pytest.fixture(autouse=True)
def logs():
    yield
    structlog.reset_defaults()


def check(name, text):
    path = GOLDEN / name
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def moment(at_s, **fields):
    known = {"hosts": {}, "proven": 0, "released": 0, "down": 0, "requested": 0, "booting": 0}
    return Moment(at_s=at_s, up=0, **(known | fields))


def course(**fields):
    known = {
        "about": "A rack loses its power.", "seed": 7, "mode": "enforce", "nodes": 6, "zones": 2,
        "vms": 12, "policies": {"site-lost": "fedcba987654", "node-lost": "0123456789ab"},
        "answered": {"node-lost": 2}, "ended_s": 131.0, "calm": False,
        "recovery": Recovery(
            lost=4, up=3, left=("shop/db",), median_s=20.04, p95_s=29.9, last_s=31.0,
            peak_boots=3, peak_boots_s=19.2, peak_boots_host=2,
        ),
        "hosts": (
            HostCourse(
                host="n01", verdict="Dead", convicted_s=4.5, proven_s=15.2,
                proof="power-off-verified", released_s=15.3, resolved_s=48.6, state="resolved",
                vms=2,
            ),
            HostCourse(
                host="n02", verdict="Unreachable", convicted_s=6.0, state="held", vms=2,
                withheld={"zone-share": 3, "fences-at-once": 1},
            ),
        ),
        "moments": (
            moment(0.0),
            moment(1.0, down=4),
            moment(6.0, down=4, hosts={"confirmed": 1, "fencing": 1}),
            *(moment(10.0 + at, down=4, requested=at) for at in range(40)),
        ),
        "lines": (
            Line(at_s=0.0, subject="---", what="event", why="power-loss n01, n02"),
            Line(at_s=4.5, subject="node/n01", what="verdict", verdict="Dead", why="Dead: off"),
            Line(at_s=4.5, subject="node/n01", what="started fence", why="power it off"),
            Line(at_s=6.0, subject="node/n02", what="refused", why="zone-share: 2 of 3 down"),
            Line(at_s=9.0, subject="node/n01", what="finished fence (failed)", why="no answer"),
        ),
        "records": 31, "kinds": {"verdict": 2},
    }  # fmt: skip
    return Course(**(known | fields))


def test_a_course_as_people_read_it():
    check("simulate-course.text", text_of(course(), verbose=False))


def test_verbose_tells_every_decision():
    told = text_of(course(), verbose=True)
    assert "started fence           power it off" in told
    assert "--verbose" not in told


def test_where_nothing_was_lost_it_says_so():
    told = text_of(course(hosts=(), recovery=Recovery(), calm=True), verbose=False)
    assert "no VM was lost\nVMs that ran twice at a time: none" in told
    assert "31 decisions; all was well when it ended" in told


def test_the_names_in_the_help_are_those_of_the_scenarios():
    assert tuple(SHIPPED) == BUILT_IN


def test_a_lost_host_is_recovered_and_the_same_seed_plays_the_same_course(remediator):
    first = remediator("simulate", "host-lost", *SMALL, "-o", "json")
    played = json.loads(first.out)
    assert first.code == ExitCode.OK
    assert played["recovery"]["lost"] == played["recovery"]["up"] == 2
    assert played["recovery"]["double_runs"] == 0
    (host,) = played["hosts"]
    assert host["proof"] == "power-off-verified"
    assert host["convicted_s"] < host["proven_s"] <= host["released_s"] < host["resolved_s"]
    downs = [each["down"] for each in played["moments"]]
    assert max(downs) == 2
    assert downs[-1] == 0
    assert remediator("simulate", "host-lost", *SMALL, "-o", "json").out == first.out
    other = remediator("simulate", "host-lost", *SMALL, "-o", "json", "--seed", "2")
    assert other.out != first.out


def test_a_zone_that_is_cut_off_is_held_and_nothing_is_fenced(remediator):
    answer = remediator("simulate", "zone-cut", *SMALL)
    assert answer.code == ExitCode.OK
    assert "no VM was lost" in answer.out
    assert "zone-share: 2 of 2 nodes down or silent, limit 1" in answer.out
    assert "finished fence" not in answer.out


def test_other_policies_lead_to_another_course(remediator, tmp_path):
    (tmp_path / "a.yaml").write_text(NO_PROOF)
    answer = remediator("simulate", "host-lost", *SMALL, "--until", "2m", "--policies", tmp_path)
    assert answer.code == ExitCode.FINDING
    assert "1 policy; answered incidents: trusting-nobody (" in answer.out
    assert "no level of bmc gives a proof that the policy takes here" in answer.out
    assert "0 of 2 VMs that were lost are up again\nstill down: " in answer.out


def test_observing_changes_nothing(remediator):
    answer = remediator("simulate", "host-lost", *SMALL, "--until", "90s", "--mode", "observe")
    assert answer.code == ExitCode.FINDING
    assert "observe mode: would cordon, fence" in answer.out


def test_with_the_admission_gate_starts_are_held_back_by_it(remediator):
    gate = Path(__file__).parents[2] / "deploy" / "admission" / "webhook.yaml"
    answer = remediator("simulate", "host-lost", *SMALL, "--gate", gate)
    assert answer.code == ExitCode.OK
    assert "2 of 2 VMs that were lost are up again" in answer.out
    wrong = remediator("simulate", "host-lost", "--gate", gate.with_name("service.yaml"))
    assert wrong.code == ExitCode.USAGE


def test_a_file_says_what_happens(remediator, tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(
        "about: Two hosts of one zone panic.\n"
        "cluster: {nodes: 8, zones: 2, vms: 8, boot: 1m}\n"
        "events:\n"
        "  - {at: 0s, kernel-panic: n01}\n"
        '  - {at: 20s, power-loss: "n0[3]"}\n'
        "until: 10m\n"
    )
    answer = remediator("simulate", file)
    assert answer.code == ExitCode.OK
    assert answer.out.startswith("Two hosts of one zone panic.\n8 hosts in 2 zones, 8 VMs;")
    assert "2 of 2 VMs that were lost are up again" in answer.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("about: x\nevent: []\n", "two.yaml:2: event: unknown key; did you mean 'events'?"),
        (
            "about: x\nevents:\n  - {at: 0s, power-los: n01}\n",
            "two.yaml:3: events[0]: 'power-los' is no verb; did you mean 'power-loss'?",
        ),
        ("about: x\nevents:\n  - {power-loss: n01}\n", "an event has 'at' and one verb"),
        (
            "about: x\nevents:\n  - {at: 0s, power-loss: n99}\n",
            "events[0]: power-loss: no host is named n99",
        ),
        ("about: x\nevents:\n  - {at: 0s, cut-zone: zone-q}\n", "there is no zone-q"),
        ("about: x\nevents:\n  - {at: 0s, api: asleep}\n", "events[0]: api: takes one of ok, hang"),
        ("about: x\nevents:\n  - {at: 9s, api: hang}\n", "events: the first must be at 0s"),
        ("about: x\nevents:\n  - {at: 0s, power-loss: [7]}\n", "names must be words"),
        ("about: x\nuntil: 2h\nevents:\n  - {at: 3h, api: ok}\n", "not between 0 s and the end"),
        ("about: x\ncluster: {zones: 40}\n", "cluster: zones must be between 1 and 26"),
        ("about: x\ncluster: {nodes: 5000}\n", "cluster.nodes: 5000 is not between 1 and 1000"),
        ("about: [\n", "two.yaml"),
    ],
)
def test_a_wrong_file_is_refused_with_its_fault(remediator, tmp_path, text, says):
    file = tmp_path / "two.yaml"
    file.write_text(text)
    answer = remediator("simulate", file)
    assert answer.code == ExitCode.USAGE
    assert says in answer.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("host-gone",), "'host-gone' is neither a file nor one of host-lost, rack-lost"),
        (("rack-lost", "--nodes", "6", "--hosts", "3"), "hosts: 3 is not between 1 and 2"),
        (("host-lost", "--policies", "absent"), "absent"),
        (("host-lost", "--until", "soon"), "--until: 'soon' is not a duration"),
        (("zone-cut", "--until", "1m"), "events[1]: at 300 s is not between 0 s and the end"),
    ],
)
def test_wrong_options_end_with_one_line(remediator, arguments, says):
    answer = remediator("simulate", *arguments)
    assert answer.code == ExitCode.USAGE
    assert says in answer.err
