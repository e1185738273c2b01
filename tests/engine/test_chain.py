"""The hash chain: whatever is done to the log shows, with the sequence where it was done."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine import chain
from remediator.engine.chain import ChainError, DecisionKind, Head
from remediator.engine.inputs import Ground, Inputs, MatchSeen, OwnSeen, VmSeen
from remediator.engine.model import Subject, Verdict
from remediator.engine.plane_values import PlaneValues
from remediator.engine.settings import FenceLevel
from remediator.engine.vm_verdicts import VmValues


def records(count: int) -> list[tuple[int, bytes]]:
    head, made = Head(), []
    for seq in range(1, count + 1):
        decision = chain.Decision(
            seq=seq,
            prev=head.digest,
            at=float(seq),
            leader="me",
            epoch=1,
            kind=DecisionKind.VERDICT,
            subject=Subject("node", f"n{seq}"),
            why="because",
        )
        payload = chain.encode(decision)
        made.append((seq, payload))
        head = chain.advance(payload, seq)
    return made


def test_an_untouched_chain_verifies():
    log = records(50)
    assert chain.verify(log).seq == 50


def test_a_record_reads_back_as_it_was_written():
    (_, payload) = records(1)[0]
    assert chain.encode(chain.decode(payload)) == payload


def test_an_altered_record_is_named_by_the_one_after_it():
    log = records(10)
    log[4] = (5, log[4][1].replace(b"because", b"just so"))
    with pytest.raises(ChainError, match="record 6: does not follow record 5") as caught:
        chain.verify(log)
    assert caught.value.seq == 6


def test_a_missing_record_is_named():
    log = records(10)
    del log[4]
    with pytest.raises(ChainError, match="record 5: missing: the stream goes on at sequence 6"):
        chain.verify(log)


def test_two_swapped_records_are_named():
    log = records(10)
    log[4], log[5] = (5, log[5][1]), (6, log[4][1])
    with pytest.raises(ChainError, match="record 5: says that it is record 6"):
        chain.verify(log)


@pytest.mark.parametrize(
    "garbage", [b"", b"{}", b"\xff\x00", b"[" * 100_000, b'{"why":"\xff"}', b'{"seq":1}', b"[]"]
)
def test_a_foreign_message_is_named(garbage):
    log = [*records(3), (4, garbage)]
    with pytest.raises(ChainError, match="record 4: not a decision record"):
        chain.verify(log)


def test_a_record_of_a_newer_schema_is_refused():
    (_, payload) = records(1)[0]
    newer = payload.replace(b'"schema":2', b'"schema":99')
    with pytest.raises(ChainError, match="schema 99 is newer"):
        chain.decode(newer, 1)


def test_verification_can_go_on_from_a_known_head():
    log = records(10)
    head = chain.verify(log[:6])
    assert chain.verify(log[6:], head).seq == 10


def test_a_record_of_before_the_inputs_is_read_and_continues_the_chain():
    (_, payload) = records(1)[0]
    old = msgspec.json.decode(payload)
    del old["inputs"]
    old["schema"] = 1
    old_payload = msgspec.json.encode(old, order="sorted")
    assert chain.decode(old_payload, 1).inputs is None
    assert chain.verify([(1, old_payload)]).seq == 1


def test_inputs_read_back_as_they_were_written():
    (_, payload) = records(1)[0]
    seen = MatchSeen(
        kind="vm", name="db", namespace="shop", verdict=Verdict.STUCK, since_at=1.5, at=2.5,
        labels={"app": "db"}, facts={"vm": {"crashes": 3, "claims": ["data"], "ready": False}},
    )  # fmt: skip
    inputs = Inputs(
        planes=PlaneValues(lease="silent"),
        vm=VmSeen(values=VmValues(phase="failed"), stood_s={"failed": 60.0}),
        own=OwnSeen(multiplier=2, reasons=("slow",)),
        match=seen,
        ground=Ground(vms=1, disks=("readWriteOnce",), levels=(FenceLevel(),)),
    )
    decision = msgspec.structs.replace(chain.decode(payload), inputs=inputs)
    assert chain.decode(chain.encode(decision)).inputs == inputs


def test_inputs_that_would_make_a_record_too_large_are_left_out_and_it_says_so():
    (_, payload) = records(1)[0]
    seen = MatchSeen(
        kind="node", name="n1", verdict=Verdict.DEAD, since_at=1.0, at=2.0,
        facts={"words": "x" * chain.RECORD_MAX},
    )  # fmt: skip
    decision = msgspec.structs.replace(chain.decode(payload), inputs=Inputs(match=seen))
    sealed, sealed_payload = chain.seal(decision)
    assert len(sealed_payload) < 2000
    assert sealed.inputs is not None
    assert sealed.inputs.omitted.startswith("with its inputs the record has 78")
    assert sealed.inputs.match is None
    assert chain.decode(sealed_payload) == sealed
