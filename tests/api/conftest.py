from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

# The records that tests of the journal are about; test directories are no packages.
_spec = importlib.util.spec_from_file_location(
    "journal_records", Path(__file__).parent.parent / "journal" / "conftest.py"
)
journal_records = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(journal_records)


@pytest.fixture
def book():
    made = journal_records.Book()
    journal_records.write_incident(made)
    return made
