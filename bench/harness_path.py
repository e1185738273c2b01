"""Makes the simulation's harness importable; imported for that alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "simulation"))
