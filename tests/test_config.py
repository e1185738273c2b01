from __future__ import annotations

import pytest

from remediator.config import ConfigError, Settings, effective, load
from remediator.fence_settings import RedfishDevice

HOME = {"HOME": "/home/op"}


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "remediator.yaml"
        path.write_text(text)
        return path

    return write


def faults(path=None, env=None, **flags):
    with pytest.raises(ConfigError) as caught:
        load(path, environ={**HOME, **(env or {})}, flags=flags)
    return str(caught.value).splitlines()


def test_without_anything_it_observes_from_loopback_with_the_shipped_policies():
    settings = load(environ=HOME)
    assert settings.mode == "observe"
    assert settings.http.host == "127.0.0.1"
    assert settings.identity
    assert settings.policies.endswith("/policies")
    assert settings.journal.path == "/home/op/.local/state/remediator/journal.sqlite"
    assert settings.nats.embedded_dir == "/home/op/.local/state/remediator/nats"


def test_later_sources_win_key_by_key(file):
    path = file("mode: enforce\nhttp: {host: 0.0.0.0, port: 1}\nkube: {namespace: a}\n")
    env = {**HOME, "REMEDIATOR_HTTP__PORT": "2", "REMEDIATOR_KUBE__NAMESPACE": "b"}
    settings = load(path, environ=env, flags={"kube.namespace": "c", "mode": None})
    assert settings.mode == "enforce"
    assert (settings.http.host, settings.http.port) == ("0.0.0.0", 2)
    assert settings.kube.namespace == "c"


def test_durations_are_words_or_seconds(file):
    path = file("engine: {detection: {lease_silent_after_s: 1m, power_fresh_s: 7.5}}")
    env = {**HOME, "REMEDIATOR_ELECTION__TIMING__LEASE_DURATION_S": "1m"}
    settings = load(path, environ=env)
    assert settings.engine.detection.lease_silent_after_s == 60.0
    assert settings.engine.detection.power_fresh_s == 7.5
    assert settings.election.timing.lease_duration_s == 60.0


def test_fence_devices_are_read_whole(file):
    path = file(
        "fence:\n  devices:\n    - name: racks\n      nodes: ['n*']\n"
        "      endpoint: https://bmc-{node}\n      username: op\n      password_file: /run/pw\n"
        "      timeout_s: 3s\n"
    )
    (device,) = load(path, environ=HOME).fence.devices
    assert isinstance(device, RedfishDevice)
    assert (device.nodes, device.timeout_s) == (("n*",), 3.0)


def test_every_fault_of_a_file_is_told_at_once_with_its_place(file):
    path = file(
        "mode: enforec\n"
        "htttp: {}\n"
        "http:\n"
        "  port: eighty\n"
        "engine:\n"
        "  detection: {lease_silent_after_s: soon}\n"
        "  budgets:\n"
        "    max_fences_at_once: 2.5\n"
        "fence:\n"
        "  devices:\n"
        "    - {name: a, type: ipmi}\n"
        "    - {name: b, endpoint: https://x, username: u}\n"
    )
    assert faults(path) == [
        f"{path}:1:1: mode: 'enforec' is not one of observe, enforce",
        f"{path}:2:1: htttp: unknown key; did you mean 'http'?",
        f"{path}:4:3: http.port: expected int, found text 'eighty'",
        (
            f"{path}:6:15: engine.detection.lease_silent_after_s: 'soon' is not a duration;"
            " write 90s, 5m, 1h30m or a number of seconds"
        ),
        f"{path}:8:5: engine.budgets.max_fences_at_once: expected int, found 2.5",
        f"{path}:11:17: fence.devices[0].type: 'ipmi' is not one of redfish",
        f"{path}:12:7: fence.devices[1]: key 'password_file' is missing",
    ]


def test_faults_of_the_environment_name_the_variable():
    assert faults(
        env={
            "REMEDIATOR_HTTP__PROT": "1",
            "REMEDIATOR_HTTP__PORT": "many",
            "REMEDIATOR_MOD": "enforce",
            "REMEDIATOR_NATS__REPLICAS": "[1",
        }
    ) == [
        "REMEDIATOR_HTTP__PORT: http.port: expected int, found text 'many'",
        "REMEDIATOR_HTTP__PROT: http.prot: unknown key in http; did you mean 'port'?",
        "REMEDIATOR_MOD: mod: unknown key; did you mean 'mode'?",
        (
            "REMEDIATOR_NATS__REPLICAS: nats.replicas: while parsing a flow sequence: expected ','"
            " or ']', but got '<stream end>'"
        ),
    ]


def test_a_flag_s_fault_names_the_key():
    assert faults(mode="dry") == ["flag for mode: mode: 'dry' is not one of observe, enforce"]


def test_what_kubernetes_injects_for_a_service_of_our_name_is_ignored():
    env = {
        "REMEDIATOR_SERVICE_HOST": "10.0.0.1",
        "REMEDIATOR_SERVICE_PORT": "8080",
        "REMEDIATOR_SERVICE_PORT_HTTP": "8080",
        "REMEDIATOR_PORT": "tcp://10.0.0.1:8080",
        "REMEDIATOR_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "REMEDIATOR_PORT_8080_TCP_PROTO": "tcp",
        "REMEDIATOR_NATS_SERVICE_HOST": "10.0.0.2",
        "REMEDIATOR_NATS_PORT_4222_TCP_ADDR": "10.0.0.2",
        "REMEDIATOR_CONFIG": "/etc/remediator.yaml",
        "REMEDIATOR_SERVER": "http://127.0.0.1:8080",
        "REMEDIATOR_HTTP__PORT": "9",  # ours, although it ends like one of theirs
    }
    assert load(environ={**HOME, **env}).http.port == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "election: {timing: {lease_duration_s: 2s}}",
            "election.timing: lease_duration_s 2 is too",
        ),
        ("http: {port: 70000}", "http.port: 70000 is not between 0 and 65535"),
        ("engine: {budgets: {max_unhealthy_zone_share: 51}}", "51 is not a share"),
        ("engine: {budgets: {max_fences_at_once: 0}}", "0 is too few; at least 1"),
        ("engine: {budgets: {nodes: {per_hour: 0}}}", "0 is too few; at least 1, or null"),
        ("engine: {budgets: {vms: {restarts: 0}}}", "0 is too few; at least 1, or null"),
        ("engine: {budgets: {storm_share: 10}}", "10 is not a share: from 0 to 1"),
        ("engine: {budgets: {storm_nodes: 0}}", "0 is too few; at least 1"),
        ("engine: {budgets: {flap_window_s: 90000}}", "90000 s is not from 0 to 86400"),
        ("engine: {steps: {retry_after_s: -1}}", "-1 is not a duration"),
        ("nats: {url: 'http://x'}", "nats.url: 'http://x' must begin with nats:// or tls://"),
        ("nats: {replicas: 2}", "nats.replicas must be 1, 3 or 5"),
        ("nats: {url: 'nats://x', token_file: /nonexistent}", "nats.token_file: cannot read"),
        ("- a", "must hold keys and values"),
        ("mode: [", ":1:8:"),
        ("http: 5", "http: expected keys and values, found 5"),
        ("mode: enforce\nmode: observe", ":2:1: key 'mode' stands twice; first in line 1"),
    ],
)
def test_values_that_cannot_work_are_refused(file, text, says):
    (fault,) = faults(file(text))
    assert says in fault


def test_two_fence_devices_of_one_name_are_refused(file):
    device = "{name: a, endpoint: https://x, username: u, password_file: p}"
    (fault,) = faults(file(f"fence: {{devices: [{device}, {device}]}}"))
    assert "fence.devices[1].name: the name 'a' is used twice" in fault


def test_a_section_with_nothing_below_it_means_its_defaults(file):
    assert load(file("http:\nlog:\n"), environ=HOME) == load(environ=HOME)


def test_printing_shows_no_password_of_a_url():
    env = {**HOME, "REMEDIATOR_NATS__URL": "nats://op:hunter2@bus:4222"}
    shown = effective(load(environ=env))
    assert "hunter2" not in str(shown)
    assert "bus:4222" in str(shown)


def test_what_is_printed_can_be_loaded_again(file):
    import yaml  # noqa: PLC0415

    first = load(environ=HOME)
    assert load(file(yaml.safe_dump(effective(first))), environ={}) == first


def test_the_defaults_in_the_tree_are_the_safe_ones():
    assert Settings().mode == "observe"
    assert Settings().engine.budgets.max_fences_at_once <= 2


def test_a_prober_learns_from_its_pod_where_it_stands(file):
    env = {**HOME, "REMEDIATOR_PROBES__ZONE": "zone-a", "REMEDIATOR_PROBES__NODE": "n1"}
    probes = load(file("probes: {peace_period_s: 10s, ports: [22]}"), environ=env).probes
    assert (probes.zone, probes.node, probes.peace_period_s, probes.ports) == (
        "zone-a",
        "n1",
        10.0,
        (22,),
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{kubelet: false, icmp: false}", "probes.kubelet: no kind of probe is left"),
        ("{references: ['10.0.0.1:6443', 'api.example:6443']}", "probes.references[1]: 'api.ex"),
        ("{references: ['10.0.0.1']}", "probes.references[0]: '10.0.0.1' must be an IP address"),
        ("{references: ['[fd00::1]:0']}", "probes.references[0]:"),
        ("{https: ['http://{address}/healthz']}", "probes.https[0]:"),
        ("{https: ['https://10.0.0.1/healthz']}", "probes.https[0]:"),
        ("{vantage: 'zone a'}", "probes.vantage:"),
        ("{ports: [70000]}", "probes.ports[0]:"),
        ("{peace_period_s: 0}", "probes.peace_period_s:"),
    ],
)
def test_probes_that_cannot_work_are_refused(file, text, fault):
    assert any(fault in line for line in faults(file(f"probes: {text}"))), faults(
        file(f"probes: {text}")
    )


def test_a_reference_may_be_an_ipv6_address(file):
    settings = load(file("probes: {references: ['[fd00::1]:6443']}"), environ=HOME)
    assert settings.probes.references == ("[fd00::1]:6443",)


def test_a_known_source_that_can_never_speak_is_named(file):
    path = file("signals: {known: [{name: '', planes: [power]}]}\n")
    (fault,) = faults(path)
    assert "signals.known[0].name" in fault
    assert "is empty" in fault


def test_a_plane_that_is_none_is_named(file):
    path = file("signals:\n  known:\n    - {name: a, planes: [astral]}\n")
    (fault,) = faults(path)
    assert fault.startswith(f"{path}:3:")
    assert "'astral'" in fault


def test_where_sources_must_be_known_our_own_vantage_points_must_be_among_them(file):
    known = "known: [{name: 'zone-*', planes: [network]}]"
    (fault,) = faults(file("signals: {require_known: true}\n"))
    assert "signals.require_known" in fault
    assert "vantage points" in fault
    for text in (
        f"signals: {{require_known: true, {known}}}\n",
        "signals: {require_known: true}\nprobes: {enabled: false}\n",
    ):
        assert load(file(text), environ=HOME).signals.require_known


def test_addresses_of_storage_apis_are_checked(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("storage:\n  portworx_url: px:9001\n  period_s: 1\n")
    with pytest.raises(ConfigError) as refused:
        load(file, environ={})
    assert [(each.line, str(each)) for each in refused.value.problems] == [
        (2, f"{file}:2:3: storage.portworx_url: 'px:9001' does not begin with http:// or https://"),
        (3, f"{file}:3:3: storage.period_s: less than 10 s would only load the storage's API"),
    ]
