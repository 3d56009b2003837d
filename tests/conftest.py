"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("dosemover", deadline=None, derandomize=True)
settings.load_profile("dosemover")

DATA = Path(os.environ.get("DOSEMOVER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_path():
    """Path of a file of the shared real data; skips where it is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"real data absent: {name} not under {DATA} (DOSEMOVER_DATA names another place)")
        return path

    return find
