"""A few stories of the broader mix; ``python tests/breaking/mix.py FIRST LAST`` plays thousands."""

from __future__ import annotations

import pytest
from mix import play
from stopping import run


@pytest.mark.parametrize("seed", range(12))
def test_a_story_of_the_broader_mix_ends_well(seed):
    story = run(play(seed))
    assert not story.problems, str(story)
