"""Alert rules: of the right shape, on series that there are, for every fault that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from remediator.fence_metrics import FAULTS
from remediator.metrics import Metrics

FILES = sorted((Path(__file__).parents[1] / "deploy" / "alerts").glob("*.yaml"))
RULES = [
    rule
    for path in FILES
    for group in yaml.safe_load(path.read_text())["spec"]["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_a_prometheus_rule(path):
    tree = yaml.safe_load(path.read_text())
    assert (tree["apiVersion"], tree["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert set(tree["spec"]) == {"groups"}
    assert all(set(group) == {"name", "rules"} for group in tree["spec"]["groups"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_whole_and_reads_series_that_exist(rule):
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Remediator[A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert "for" not in rule or re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["expr"].count("(") == rule["expr"].count(")")
    families = list(Metrics(CollectorRegistry()).registry.collect())
    known = {f"{each.name}{end}" for each in families for end in ("", "_total")}
    used = set(re.findall(r"\bremediator_[a-z_]+", rule["expr"]))
    assert used
    assert used <= known


def test_labels_in_texts_are_those_that_the_expression_keeps():
    for rule in RULES:
        kept = set(re.split(r",\s*", "".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
        named = set(re.findall(r"\$labels\.([a-z_]+)", " ".join(rule["annotations"].values())))
        assert named <= kept, rule["alert"]


def test_every_kind_of_fault_has_its_alert():
    found = {kind for rule in RULES for kind in re.findall(r'kind="([a-z-]+)"', rule["expr"])}
    assert found == set(FAULTS)
    broken = next(rule for rule in RULES if 'kind="no-answer"' in rule["expr"])
    assert broken["for"] == "15m"
