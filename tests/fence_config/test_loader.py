"""FenceConfig files: what is taken, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from remediator.documents import DocumentError
from remediator.fence_config import config_for, load_directory, load_text
from remediator.fence_config.loader import label_keys
from remediator.fence_config.shorthand import from_device
from remediator.fence_settings import RedfishDevice

HEAD = "apiVersion: remediator.io/v1alpha1\nkind: FenceConfig\n"
HAND = "devices: [{name: hand, method: operator}], levels: [{devices: [hand]}]"


def document(spec=HAND, name="racks"):
    return f"{HEAD}metadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def devices(*lines, levels="[{devices: [a]}]"):
    return document(f"devices: [{', '.join(lines)}], levels: {levels}")


def faults(text):
    with pytest.raises(DocumentError) as caught:
        load_text(text, file="f.yaml")
    return [str(one) for one in caught.value.problems]


ALL = Path(__file__).with_name("every-method.yaml").read_text()


def test_every_method_and_every_field_is_read():
    (found,) = load_text(ALL, file="f.yaml")
    spec = found.spec
    assert [type(one).__struct_config__.tag for one in spec.devices] == [
        "redfish", "agent", "medik8s", "metal3", "machine", "networkFence", "operator"
    ]  # fmt: skip
    pdu = found.device("pdu")
    assert (pdu.timeout_s, pdu.retries, pdu.delay_s, pdu.concurrency) == (45.0, 1, 2.0, 1)
    assert pdu.node_parameters == {"n7": {"plug": "7"}}
    assert pdu.credentials.secret.namespace == "racks"
    assert (spec.power_on, spec.check_period_s, spec.priority) == (True, 120.0, 5)
    assert spec.levels[0].devices == ("bmc", "pdu")
    assert (spec.levels[0].attempts, spec.levels[1].attempts) == (3, 2)
    assert found.source == "f.yaml"


def test_a_node_is_chosen_by_any_name_and_all_labels():
    (found,) = load_text(ALL, file="f.yaml")
    assert found.fits("rack1-3", {"zone": "a", "other": "x"})
    assert found.fits("n7", {"zone": "a"})
    assert not found.fits("n7", {"zone": "b"})
    assert not found.fits("n8", {"zone": "a"})
    assert label_keys([found]) == {"zone"}
    (every,) = load_text(document(), file="f.yaml")
    assert every.fits("anything", {})


def test_the_first_in_order_of_priority_and_name_is_the_nodes(tmp_path):
    (tmp_path / "1.yaml").write_text(document(name="zz") + "---\n" + document(name="b"))
    (tmp_path / "2.yml").write_text(document(f"priority: 7, {HAND}", name="special"))
    (tmp_path / ".swap.yaml").write_text("nonsense")
    found = load_directory(tmp_path)
    assert [one.name for one in found] == ["special", "b", "zz"]
    assert config_for(found, "n1", {}).name == "special"
    assert config_for([], "n1", {}) is None


def test_the_hash_is_of_the_content_and_not_of_its_layout():
    (one,) = load_text(document(), file="a.yaml")
    swapped = "levels: [{devices: [hand]}], devices: [{method: operator, name: hand}]"
    (same,) = load_text(document(swapped), file="b.yaml")
    (other,) = load_text(document(f"priority: 1, {HAND}"), file="a.yaml")
    assert one.content_hash == same.content_hash != other.content_hash


def test_all_faults_of_a_file_are_told_at_once_each_with_its_place():
    text = f"""{HEAD}metadata: {{name: Racks}}
spec:
  devices:
    - {{name: bmc, method: redfish, endpoint: bmc1, credentials: {{username: a}}}}
    - {{name: bmc, method: agent, program: ipmilan}}
  levels:
    - {{devices: [bmc, pdu]}}
"""
    assert faults(text) == [
        "f.yaml:3:12: metadata.name: must be lower-case letters, digits and '-', at most 63",
        "f.yaml:6:36: spec.devices[0].endpoint: 'bmc1' is no URL of a BMC (https://…)",
        "f.yaml:6:52: spec.devices[0].credentials: needs either passwordFile or secret",
        "f.yaml:7:8: spec.devices[1].name: the name 'bmc' is used twice",
        "f.yaml:7:34: spec.devices[1].program: 'ipmilan' is no name of a fence agent (fence_…)",
        "f.yaml:9:23: spec.levels[0].devices[1]: no device is called 'pdu'",
    ]


AGENT = "name: a, method: agent, program: fence_ipmilan"
LOGIN = "credentials: {username: u, passwordFile: /p}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (devices(), "names no device"),
        (document("devices: [{name: a, method: machine}], levels: []"), "names no level"),
        (devices("{name: a, method: ipmi}"), "'ipmi' is not one of agent, machine, "),
        (devices("{name: a}"), "key 'method' is missing"),
        (
            devices(f"{{name: a, method: redfish, endpoint: 'https://b:99999', {LOGIN}}}"),
            "is no URL of a BMC",
        ),
        (
            devices(f"{{name: a, method: redfish, endpoint: 'https://b:{{node}}', {LOGIN}}}"),
            "is no URL of a BMC",
        ),
        (devices(f"{{{AGENT}, parameter: {{}}}}"), "unknown key; did you mean 'parameters'?"),
        (devices(f"{{{AGENT}, parameters: {{passwd: x}}}}"), "is a secret: name it under cred"),
        (
            devices(f"{{{AGENT}, nodeParameters: {{n1: {{password: x}}}}}}"),
            "spec.devices[0].nodeParameters.n1.password: is a secret",
        ),
        (devices(f"{{{AGENT}, parameters: {{ip: 'bmc-{{host}}'}}}}"), "{host} is not known"),
        (devices(f"{{{AGENT}, timeout: -1}}"), "is not a duration"),
        (devices(f"{{{AGENT}, concurrency: 0}}"), "expected int >= 1"),
        (
            devices(f"{{name: a, method: redfish, endpoint: 'https://u:p@b', {LOGIN}}}"),
            "holds credentials: name them under credentials",
        ),
        (
            devices(f"{{name: a, method: redfish, endpoint: 'https://b', system: '1', {LOGIN}}}"),
            "is a path: it begins with '/'",
        ),
        (
            devices(
                f"{{{AGENT}, credentials: {{username: u, usernameFile: /u, passwordFile: /p}}}}"
            ),
            "stands beside username",
        ),
        (devices(f"{{{AGENT}, credentials: {{passwordFile: /p}}}}"), "needs username or"),
        (
            devices("{name: a, method: networkFence}"),
            "needs either className or driver",
        ),
        (devices("{name: a, method: networkFence, driver: d}"), "is needed with driver"),
        (
            devices(
                "{name: a, method: medik8s,"
                " template: {apiVersion: v1, kind: Remedy, name: x, namespace: y}}"
            ),
            "a template's kind ends in 'Template'",
        ),
        (
            devices("{name: a, method: machine}", "{name: b, method: machine}"),
            "'b' is in no level",
        ),
        (devices("{name: a, method: machine}", levels="[{devices: [a, a]}]"), "a stands twice"),
        (
            devices(
                "{name: a, method: operator}",
                "{name: b, method: machine}",
                levels="[{devices: [a, b]}]",
            ),
            "a waits for a person: a level of its own",
        ),
        (
            devices(
                "{name: a, method: operator}",
                "{name: b, method: machine}",
                levels="[{devices: [a]}, {devices: [b]}]",
            ),
            "is never reached",
        ),
        (document() + "---\n" + document(), "the name 'racks' is used twice; first in f.yaml:3"),
        (document().replace("FenceConfig", "RemediationPolicy"), "kind:"),
    ],
)
def test_what_could_not_fence_as_it_is_meant_is_refused(text, words):
    told = faults(text)
    assert any(words in one for one in told), told


def test_a_password_in_the_wrong_place_is_not_repeated_in_the_fault():
    told = faults(devices(f"{{{AGENT}, parameters: {{passwd: hunter2-secret}}}}"))
    told += faults(
        devices(f"{{name: a, method: redfish, endpoint: 'https://u:hunter2-secret@b', {LOGIN}}}")
    )
    assert not any("hunter2-secret" in one for one in told)


def test_a_directory_that_holds_nothing_or_is_none_is_a_fault(tmp_path):
    with pytest.raises(DocumentError, match=r"holds no FenceConfig \(\*\.yaml\)"):
        load_directory(tmp_path)
    with pytest.raises(DocumentError, match="is not a directory"):
        load_directory(tmp_path / "none")
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    (tmp_path / "b.yaml").write_text("a: [")
    with pytest.raises(DocumentError) as caught:
        load_directory(tmp_path)
    assert "a.yaml: not UTF-8" in str(caught.value)
    assert "b.yaml:1:" in str(caught.value)


def test_the_shorthand_is_a_configuration_with_one_device_on_one_level():
    device = RedfishDevice(
        name="bmc", nodes=("n*",), endpoint="https://b-{node}", username="u", password_file="/p"
    )
    found = from_device(device)
    assert found.name == found.spec.levels[0].devices[0] == found.spec.devices[0].name == "bmc"
    assert found.fits("n1", {})
    assert not found.fits("m1", {})
    other = from_device(msgspec.structs.replace(device, endpoint="https://c-{node}"))
    assert other.content_hash != found.content_hash
