"""Runs in ansible-rulebook's own venv: its rule engine alone, on rules and events from files.

Arguments: the rulebook and the events, as JSON. Prints one JSON object: processor seconds for all
events, Java's threads in this process included, and per event the rule that fired ("" for none).
The first round warms Java's compiler up and is not timed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from ansible_rulebook.rule_generator import generate_rulesets
from ansible_rulebook.rule_types import RuleSetQueue
from ansible_rulebook.rules_parser import parse_rule_sets


async def main(rulebook: Any, events: list[Any]) -> None:
    """Play the events twice."""
    (ruleset,) = parse_rule_sets(rulebook, {})
    (plan,) = generate_rulesets([RuleSetQueue(ruleset, asyncio.Queue(), [])], {}, "")
    engine, queue = plan.ruleset, plan.plan.queue
    chosen: list[str] = []
    seconds = 0.0
    for _ in range(2):
        chosen = []
        began = time.process_time()
        for event in events:
            engine.assert_event(json.dumps(event))
            fired = ""
            while not queue.empty():
                fired = fired or queue.get_nowait().rule
            chosen.append(fired)
        seconds = time.process_time() - began
    print(json.dumps({"seconds": seconds, "chosen": chosen}), flush=True)


if __name__ == "__main__":
    book, lines = (Path(name).read_text() for name in sys.argv[1:3])
    asyncio.run(main(json.loads(book), [json.loads(line) for line in lines.splitlines()]))
