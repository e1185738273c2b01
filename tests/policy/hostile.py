"""Expressions that somebody writes to make a daemon slow, large or wrong."""

from __future__ import annotations

_THIRTY = str(list(range(30)))


def _nested_growth(depth):
    text = "node.name"
    for at in range(depth):
        text = f"[{text}].map(a{at}, {'+'.join([f'a{at}'] * 8)})[0]"
    return f"{text} == 'x'"


def _nested_exists(depth):
    text = "true"
    for at in range(depth):
        text = f"[1, 2, 3].all(x{at}, {text})"
    return text


HOSTILE = [
    _nested_growth(8),
    _nested_exists(12),
    f"{_THIRTY}.all(a, {_THIRTY}.all(b, {_THIRTY}.all(c, {_THIRTY}.all(d, a + b + c + d >= 0))))",
    "[node.name].exists(a, [a + a].exists(b, [b + b].exists(c, c == '')))",
    "[[node.name]].exists(a, [[a, a, a, a]].exists(b, b == [b]))",
    "node.labels.all(a, node.labels.all(b, a != b || a == b))",
    "node.labels.all(a, a.matches('(x+x+)+y'))",
    "node.name.matches('(a+)+$')",
    "node.name.matches('((a{100}){10}){1}')",
    "node.name.matches('(a{1000}){1000}')",
    "node.name.matches(node.name)",
    "(" * 400 + "true" + ")" * 400,
    "!" * 900 + "true",
    "-" * 900 + "1 == 1",
    "[" * 400,
    "{1:" * 300,
    "f(" * 400,
    "true ? " * 140,
    "node.name + " * 80 + "'x' == ''",
    " && ".join(["node.ready"] * 5000),
    "a." * 450 + "b",
    "'" * 999,
    '"""' + "a" * 990,
    "r'\\' + [1].map(x, x) + '",
    "/" * 999,
    "// only a comment",
    "1 / 0 > 1",
    "9223372036854775807 + node.vms > 0",
    "dyn(node.name) > 1",
    "node.labels['no such key'] == 'x'",
    "node.taints[99] == 'x'",
    "duration('999999999999h') > node.silent_for",
    "timestamp('0000-00-00T00:00:00Z') < timestamp('9999-12-31T23:59:59Z')",
    "type(node.name) == string",
    "node.name.optMap(x, x + x).orValue('') == ''",
    "[node.name].optFlatMap(x, x).orValue('') == ''",
    "cel.bind(x, node.name + node.name, x + x == '')",
    "\x00node.ready",
    "node.ready\u202e",
    "\ud7ff" * 300,
]
