"""What the settings of the pace refuse, each with its key."""

from __future__ import annotations

import pytest

from remediator.config import ConfigError, load


def loaded(tmp_path, text):
    path = tmp_path / "remediator.yaml"
    path.write_text(f"engine:\n  pacing: {text}\n")
    return load(path, environ={}).engine.pacing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{starts_at_once_cluster: 0}", "starts_at_once_cluster: 0 is too few; at least 1"),
        ("{starts_per_minute_zone: 0}", "starts_per_minute_zone: 0 is too few"),
        ("{retries: 0}", "retries: 0 is too few"),
        ("{rate: {floor: 5, initial: 3.0}}", "must be 1 <= floor <= initial <= ceiling"),
        ("{gate_tiers: [highest, urgent]}", "'urgent' is no tier: highest, high"),
        ("{namespace_tiers: {'db-*': urgent}}", "'urgent' is no tier"),
        ("{ready_when: soon}", "must be one of up, running, agent, ready, or a time"),
    ],
)
def test_a_pace_that_makes_no_sense_is_refused_by_name(tmp_path, text, says):
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert says in str(refused.value)


def test_a_pace_that_makes_sense_is_taken(tmp_path):
    pacing = loaded(
        tmp_path,
        "{gate_tiers: [highest, '150'], ready_when: 90s, starts_at_once_namespace: 3,"
        " rate: {initial: 4.0, floor: 2, ceiling: 30}}",
    )
    assert pacing.gate_tiers == ("highest", "150")
    assert (pacing.starts_at_once_namespace, pacing.rate.ceiling) == (3, 30)
