"""docs/planes.md says which Events become signals; the watchers do just that."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from remediator.kube import resources
from remediator.kube.objects import ClusterEvent
from remediator.watchers import events

PAGE = (Path(__file__).parents[2] / "docs" / "planes.md").read_text()
ROW = r"^\| `([a-z-]+-(?:failures|warnings))` \| (.+) \| (.+) \| (guest|storage) \| `([a-z-]+)` \|"
ROWS = re.findall(ROW, PAGE, re.MULTILINE)
WATCHES = {
    "probe-failures": resources.PROBE_FAILURES,
    "guest-warnings": resources.GUEST_WARNINGS,
    "attach-failures": resources.ATTACH_FAILURES,
    "mount-failures": resources.MOUNT_FAILURES,
}


def as_told(watch, words):
    """Return the event that a row of the page describes."""
    named = re.search("`(.+)`", words)
    text = named[1] if named else "SomeWatchdogFired"
    is_probe = watch == "probe-failures"
    vmi = watch == "guest-warnings"
    body = {
        "metadata": {"name": "e", "namespace": "shop"},
        "involvedObject": {
            "kind": "VirtualMachineInstance" if vmi else "Pod",
            "name": "db" if vmi else "virt-launcher-db-x",
            "fieldPath": "spec.containers{compute}" if is_probe else None,
        },
        "reason": "Unhealthy" if is_probe else text,
        "message": f"{text}: x",
    }
    return msgspec.json.decode(msgspec.json.encode(body), type=ClusterEvent)


def test_every_aspect_of_the_code_is_on_the_page():
    assert {aspect for *_, aspect in ROWS} == {
        *events._PROBES.values(),
        "panic",
        "watchdog",
        "attach",
    }
    assert {watch for watch, *_ in ROWS} == set(WATCHES)


@pytest.mark.parametrize(("watch", "who", "words", "plane", "aspect"), ROWS)
def test_what_a_row_describes_is_kept_and_means_what_it_says(watch, who, words, plane, aspect):
    del who
    event = as_told(watch, words)
    resource = WATCHES[watch]
    assert resource.keep(event)
    assert events._meaning(event) == (plane, aspect)
    selector = dict(part.split("=") for part in resource.field_selector.split(","))
    assert selector["involvedObject.kind"] == event.involved_object.kind
    assert selector.get("reason", event.reason) == event.reason


def test_the_limits_on_the_page_are_those_of_the_code():
    assert f"every {events.PERIOD_S:g} s for a VM and aspect" in PAGE.replace("\n  ", " ")
