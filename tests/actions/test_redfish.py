"""Redfish: "Off" is off and nothing else is; nothing is sent to a machine that is not the node."""

from __future__ import annotations

import base64

import msgspec
import pytest

from remediator.actions.fence import identity
from remediator.actions.fence.driver import Down, NotDown
from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.http_client import HttpResponse

SWAPPED = "44454c4c-5100-1035-8052-b4c04f4d3132"  # the tests' UUID, its first fields byte-swapped
OTHER = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
async def devices(device, bmc, make):
    return make.asked([device], bmc, epoch_at_start=0.0)


async def reading(devices, uuid=""):
    answer = await devices.power_state("n1", uuid)
    return answer.reading


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("On", Reading.UP),
        ("Off", Reading.DOWN),
        ("PoweringOff", Reading.UNKNOWN),
        ("PoweringOn", Reading.UNKNOWN),
        ("Paused", Reading.UNKNOWN),
        ("off", Reading.UNKNOWN),
        ("OFF", Reading.UNKNOWN),
        ("", Reading.UNKNOWN),
        (None, Reading.UNKNOWN),
    ],
)
async def test_only_the_exact_words_on_and_off_mean_anything(devices, bmc, state, expected):
    bmc.state = state
    assert await reading(devices) is expected


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((401, b""), "refuses the credentials"),
        ((403, b""), "refuses the credentials"),
        ((404, b""), "no such resource"),
        ((500, b"<html>\nbusy"), "500: <html> busy"),
        ((301, b""), "redirects are not followed"),
        ((200, b"<html>not json"), "not a ComputerSystem"),
        ((200, b'{"PowerState": 7}'), "not a ComputerSystem"),
        ((200, b'["Off"]'), "not a ComputerSystem"),
        ((200, b'{"PowerState": "Off'), "not a ComputerSystem"),
        ((200, b"\xff\xfe"), "not a ComputerSystem"),
        ((204, b""), "204"),
    ],
)
async def test_every_other_answer_is_unknown_and_says_why(devices, bmc, make, fault, words):
    bmc.state = "Off"
    bmc.faults["GET"] = [make.http(*fault)]
    answer = await devices.power_state("n1", "")
    assert answer.reading is Reading.UNKNOWN
    assert words in answer.detail
    bmc.faults["GET"] = [make.http(*fault)]
    off = await devices.power_off("n1", "")
    assert isinstance(off, NotDown)
    assert bmc.posts == 0


async def test_a_bmc_that_does_not_answer_is_unknown(devices, bmc):
    bmc.faults["GET"] = ["hang"]
    answer = await devices.power_state("n1", "")
    assert (answer.reading, "no answer" in answer.detail) == (Reading.UNKNOWN, True)


# --- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bmc_says", [None, "", "Not Settable", "0" * 32, "f" * 32])
async def test_a_bmc_without_a_usable_uuid_is_taken_at_its_address(devices, bmc, make, bmc_says):
    bmc.uuid = bmc_says
    assert await reading(devices, make.UUID) is Reading.UP


async def test_both_byte_orders_of_a_uuid_are_the_same_machine(devices, bmc, make):
    bmc.uuid = SWAPPED
    assert await reading(devices, make.UUID) is Reading.UP
    assert await reading(devices, make.UUID.upper()) is Reading.UP


def test_swapping_twice_is_the_same_again(make):
    assert not identity.differ(make.UUID, SWAPPED)
    assert not identity.differ(SWAPPED, make.UUID)
    assert identity.differ(make.UUID, OTHER)
    assert not identity.differ("", OTHER)


async def test_another_machine_is_never_sent_an_order_nor_believed(devices, bmc, make):
    bmc.uuid = OTHER
    bmc.state = "Off"
    assert await reading(devices, make.UUID) is Reading.UNKNOWN
    off = await devices.power_off("n1", make.UUID)
    assert isinstance(off, NotDown)
    assert off.detail.startswith("WrongMachine")
    assert bmc.posts == 0


async def test_a_node_that_does_not_know_its_uuid_trusts_the_address(devices, bmc):
    bmc.uuid = OTHER
    assert await reading(devices, "") is Reading.UP


# --- the order ------------------------------------------------------------------------------------


async def test_force_off_is_ordered_once_and_read_back(devices, bmc, make):
    off = await devices.power_off("n1", make.UUID)
    assert isinstance(off, Down)
    assert off.ordered
    posts = [call for call in bmc.calls if call[0] == "POST"]
    assert len(posts) == 1
    _, url, headers, body = posts[0]
    assert url == "https://bmc.example/redfish/v1/Systems/n1/Actions/ComputerSystem.Reset"
    assert body == {"ResetType": "ForceOff"}
    assert headers["authorization"] == "Basic " + base64.b64encode(b"admin:s3cret").decode()


async def test_off_is_ordered_even_where_it_says_off_but_counts_as_no_change(devices, bmc, make):
    bmc.state = "Off"
    off = await devices.power_off("n1", make.UUID)
    assert isinstance(off, Down)
    assert not off.ordered
    assert bmc.posts == 1


async def test_a_refused_order_is_no_fault_where_it_says_off(devices, bmc, make):
    bmc.state = "Off"
    bmc.faults["POST"] = [HttpResponse(status=400, headers={}, body=b"already off")]
    off = await devices.power_off("n1", make.UUID)
    assert isinstance(off, Down)
    assert "refused" in off.detail


async def test_one_reading_of_off_is_not_enough(devices, bmc, make):
    """Some BMCs say Off while they restart, or between two states."""
    readings = iter(["On", "Off", "On", "On", "Off", "Off", "Off", "Off"])
    bmc.on_request = lambda method: (
        setattr(bmc, "state", next(readings, "Off")) if (method == "GET") else None
    )
    off = await devices.power_off("n1", make.UUID)
    assert isinstance(off, Down)
    gets = [call for call in bmc.calls if call[0] == "GET"]
    assert len(gets) >= 7


async def test_the_advertised_reset_target_is_used(devices, bmc):
    bmc.extra = {"Actions": {"#ComputerSystem.Reset": {"target": "/redfish/v1/Chassis/1/Off"}}}
    await devices.power_off("n1", "")
    assert [c[1] for c in bmc.calls if c[0] == "POST"] == [
        "https://bmc.example/redfish/v1/Chassis/1/Off"
    ]


@pytest.mark.parametrize("target", ["https://evil.example/x", "//evil.example/x", "x", ""])
async def test_the_password_goes_nowhere_else(devices, bmc, target):
    bmc.extra = {"Actions": {"#ComputerSystem.Reset": {"target": target}}}
    await devices.power_off("n1", "")
    assert all(call[1].startswith("https://bmc.example/redfish/") for call in bmc.calls)


@pytest.mark.parametrize("answer", [(200, b"{}"), (202, b'{"@odata.id": "/tasks/1"}'), (204, b"")])
async def test_any_acceptance_will_do(devices, bmc, make, answer):
    bmc.faults["POST"] = [make.http(*answer)]
    bmc.on_request = lambda method: bmc.turn_off() if method == "POST" else None
    assert isinstance(await devices.power_off("n1", ""), Down)


@pytest.mark.parametrize("fault", [(500, b""), (503, b""), (409, b""), (429, b"")])
async def test_a_busy_bmc_is_ordered_again_and_the_state_decides(devices, bmc, make, fault):
    bmc.faults["POST"] = [make.http(*fault)]
    off = await devices.power_off("n1", "")
    assert isinstance(off, Down)
    assert bmc.posts == 2


async def test_a_bmc_that_stays_busy_is_not_ordered_for_ever(devices, bmc, make):
    bmc.faults["POST"] = [make.http(503, b"")] * 99
    off = await devices.power_off("n1", "")
    assert isinstance(off, NotDown)
    assert bmc.posts == 3
    assert "503" in off.detail


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 302])
async def test_a_clear_refusal_ends_it_at_once(devices, bmc, make, code):
    bmc.faults["POST"] = [make.http(code, b"")]
    off = await devices.power_off("n1", "")
    assert isinstance(off, NotDown)
    assert str(code) in off.detail
    assert bmc.posts == 1


async def test_an_order_without_an_answer_may_have_worked(devices, bmc):
    bmc.faults["POST"] = ["hang"]
    bmc.on_request = lambda method: bmc.turn_off() if method == "POST" else None
    off = await devices.power_off("n1", "")
    assert isinstance(off, Down)


async def test_read_backs_that_fail_are_repeated_until_the_deadline(devices, bmc, make):
    bmc.off_after_s = 6.0
    bmc.faults["GET"] = [make.http(200, {"PowerState": "On"}), make.http(500, b""), "hang"]
    off = await devices.power_off("n1", "")
    assert isinstance(off, Down)


async def test_powering_off_is_not_off(devices, bmc):
    bmc.turn_off = lambda: setattr(bmc, "state", "PoweringOff")
    off = await devices.power_off("n1", "")
    assert isinstance(off, NotDown)
    assert "PowerState is PoweringOff" in off.detail


async def test_a_bmc_that_becomes_another_machine_is_not_believed(devices, bmc, make):
    def swapped(method):
        if method == "POST":
            bmc.uuid = OTHER

    bmc.on_request = swapped
    off = await devices.power_off("n1", make.UUID)
    assert isinstance(off, NotDown)
    assert off.detail.startswith("WrongMachine")
    assert bmc.calls[-2][0] == "POST"  # one look was enough


async def test_the_shorter_deadline_counts(devices, bmc):
    bmc.obeys = False
    clock = Clock(epoch_at_start=0.0)
    off = await devices.power_off("n1", "", deadline_s=3.0)
    assert isinstance(off, NotDown)
    assert 2.0 < clock.now() < 4.5


# --- settings -------------------------------------------------------------------------------------


async def test_the_first_device_whose_pattern_fits_fences_a_node(device, bmc, make):
    other = msgspec.structs.replace(device, name="other", nodes=("*",))
    devices = make.asked([device, other], bmc).devices
    assert devices.config_for("n1", {}).name == "lab"
    assert devices.config_for("x1", {}).name == "other"
    assert make.asked([device], bmc).devices.config_for("x1", {}) is None


async def test_a_node_without_a_device_is_unknown(devices):
    assert (await devices.power_state("x1", "")).reading is Reading.UNKNOWN


async def test_two_devices_of_one_name_are_refused(device, bmc, make):
    with pytest.raises(ValueError, match="share a name"):
        make.asked([device, device], bmc)


async def test_endpoint_and_system_name_the_node(device, bmc, make):
    device = msgspec.structs.replace(
        device, endpoint="https://{node}-bmc.example/", system="/redfish/v1/Systems/1"
    )
    devices = make.asked([device], bmc)
    answer = await devices.power_state("n1", "")
    assert bmc.calls[0][1] == "https://n1-bmc.example/redfish/v1/Systems/1"
    assert answer.source == "redfish https://n1-bmc.example/redfish/v1/Systems/1"


async def test_a_rotated_password_counts_at_once(devices, bmc, password_file):
    await devices.power_state("n1", "")
    password_file.write_text("new")
    await devices.power_state("n1", "")
    sent = [base64.b64decode(c[2]["authorization"].split()[1]) for c in bmc.calls]
    assert sent == [b"admin:s3cret", b"admin:new"]


@pytest.mark.parametrize("flaw", ["missing", "empty", "not text", "too large"])
async def test_a_password_file_that_cannot_be_used_is_named(devices, bmc, password_file, flaw):
    match flaw:
        case "missing":
            password_file.unlink()
        case "empty":
            password_file.write_text("\n")
        case "not text":
            password_file.write_bytes(b"\xff\xfe")
        case _:
            password_file.write_text("x" * 5000)
    answer = await devices.power_state("n1", "")
    assert answer.reading is Reading.UNKNOWN
    assert str(password_file) in answer.detail
    assert isinstance(await devices.power_off("n1", ""), NotDown)
    assert bmc.calls == []


async def test_no_text_about_a_failure_holds_the_password(devices, bmc, make):
    texts = []
    for fault in ["hang", make.http(401, b""), make.http(500, b"x"), make.http(200, b"x")]:
        bmc.faults["GET"] = [fault]
        texts.append(repr(await devices.power_state("n1", "")))
        bmc.faults["POST"] = [fault]
        texts.append(repr(await devices.power_off("n1", "")))
    assert not any("s3cret" in text or "Basic" in text for text in texts)
