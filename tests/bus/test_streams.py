from __future__ import annotations

import msgspec
import pytest

from remediator.bus.connection import JetStreamError
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.streams import (
    StreamSpec,
    StreamUnfitError,
    desired_streams,
    ensure,
    ensure_all,
)

DECISIONS = next(spec for spec in desired_streams() if spec.name == "DECISIONS")
PLAIN = StreamSpec(name="PLAIN", subjects=("plain.>",), storage="file", max_bytes=1_000_000)


async def test_a_second_ensure_finds_nothing_to_do(connection):
    assert [report.action for report in await ensure_all(connection)] == ["unchanged"] * len(
        desired_streams()
    )


async def test_what_the_server_reports_is_what_was_asked_for(connection):
    for spec in desired_streams():
        config = (await connection.api(f"STREAM.INFO.{spec.name}"))["config"]
        for field, wanted in spec.config().items():
            assert (config.get(field) or None) == (wanted or None), (spec.name, field)


async def test_a_changed_limit_is_changed_back_and_told(connection):
    await ensure(connection, PLAIN)
    await ensure(connection, msgspec.structs.replace(PLAIN, max_bytes=5, max_age_s=60.0))
    report = await ensure(connection, PLAIN)
    assert report.action == "updated"
    assert {d.field: (d.wanted, d.found, d.fixed) for d in report.differences} == {
        "max_bytes": (1_000_000, 5, True),
        "max_age": (0, 60_000_000_000, True),
    }
    assert (await ensure(connection, PLAIN)).action == "unchanged"


async def test_an_update_keeps_what_somebody_else_added(connection):
    await ensure(connection, PLAIN)
    config = (await connection.api("STREAM.INFO.PLAIN"))["config"]
    await connection.api("STREAM.UPDATE.PLAIN", {**config, "description": "mine", "max_bytes": 7})
    await ensure(connection, PLAIN)
    config = (await connection.api("STREAM.INFO.PLAIN"))["config"]
    assert (config["description"], config["max_bytes"]) == ("mine", 1_000_000)


async def test_what_cannot_be_changed_is_told_and_the_rest_is_changed(connection):
    await ensure(connection, msgspec.structs.replace(PLAIN, storage="memory", max_bytes=5))
    report = await ensure(connection, PLAIN)
    assert [(d.field, d.found) for d in report.unfixed] == [("storage", "memory")]
    config = (await connection.api("STREAM.INFO.PLAIN"))["config"]
    assert config["max_bytes"] == 1_000_000


async def test_decisions_in_memory_are_refused_and_not_deleted(connection):
    weak = msgspec.structs.replace(
        DECISIONS, name="WEAK", subjects=("weak.>",), storage="memory", vital=()
    )
    await ensure(connection, weak)
    await connection.request("weak.x", b"precious")
    wanted = msgspec.structs.replace(weak, storage="file", vital=DECISIONS.vital)
    with pytest.raises(StreamUnfitError, match="stream WEAK: storage is 'memory', must be 'file'"):
        await ensure(connection, wanted)
    assert (await connection.api("STREAM.INFO.WEAK"))["state"]["messages"] == 1


async def test_a_journal_that_could_forget_is_mended(connection):
    forgetful = msgspec.structs.replace(
        DECISIONS,
        name="WEAK",
        subjects=("weak.>",),
        deny_delete=False,
        deny_purge=False,
        max_age_s=60.0,
        duplicate_window_s=30.0,
        discard="old",
        vital=(),
    )
    await ensure(connection, forgetful)
    wanted = msgspec.structs.replace(DECISIONS, name="WEAK", subjects=("weak.>",))
    try:
        report = await ensure(connection, wanted)
    except StreamUnfitError as error:
        pytest.fail(f"the server refuses: {error}")
    assert not report.unfixed


@pytest.mark.parametrize(
    ("call", "body"),
    [("STREAM.PURGE.DECISIONS", {}), ("STREAM.MSG.DELETE.DECISIONS", {"seq": 1})],
)
async def test_decisions_cannot_be_purged_or_deleted_one_by_one(connection, call, body):
    await connection.request("remediator.decision.node.n", b"1")
    with pytest.raises((BusUnavailableError, JetStreamError)):  # no permission: no answer at all
        await connection.api(call, body, timeout_s=0.3)
    assert (await connection.api("STREAM.INFO.DECISIONS"))["state"]["messages"] == 1


async def test_a_stream_with_our_settings_refuses_it_by_itself(connection):
    """Elsewhere than on the embedded server nobody may have set permissions."""
    twin = msgspec.structs.replace(DECISIONS, name="TWIN", subjects=("twin.>",))
    await ensure(connection, twin)
    await connection.request("twin.a", b"1")
    for call, body, err_code in (
        ("STREAM.PURGE.TWIN", {}, 10110),
        ("STREAM.MSG.DELETE.TWIN", {"seq": 1}, 10057),
    ):
        with pytest.raises(JetStreamError) as caught:
            await connection.api(call, body)
        assert caught.value.err_code == err_code


async def test_the_embedded_server_does_not_delete_decisions(connection):
    """deny_delete and deny_purge do not keep a stream from being deleted whole."""
    with pytest.raises(BusUnavailableError):
        await connection.api("STREAM.DELETE.DECISIONS", timeout_s=0.3)
    assert (await connection.api("STREAM.INFO.DECISIONS"))["config"]["name"] == "DECISIONS"


async def test_a_subject_taken_by_another_stream_is_an_error_with_a_name(connection):
    with pytest.raises(JetStreamError, match="subjects overlap"):
        await ensure(connection, msgspec.structs.replace(PLAIN, subjects=("remediator.>",)))


async def test_what_strangers_can_fill_is_bounded_in_bytes_and_age_or_subjects():
    for spec in desired_streams():
        if spec.name != "DECISIONS":
            assert spec.max_bytes > 0
            assert spec.max_age_s > 0 or spec.max_msgs_per_subject == 1


async def test_a_server_that_refuses_dead_letters_a_stream_gets_all_the_others(connection):
    await connection.api("STREAM.DELETE.DEAD_LETTERS")
    taken = StreamSpec(name="TAKEN", subjects=("remediator.dead-letter.x",), storage="memory")
    await ensure(connection, taken)
    reports = await ensure_all(connection)
    assert {report.name for report in reports} == {
        spec.name for spec in desired_streams() if spec.name != "DEAD_LETTERS"
    }
