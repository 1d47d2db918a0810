"""One run for all tests of exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.exported_run import fit, write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """The base of `run`. Read only."""
    return write_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="session")
def run(base, tmp_path_factory) -> Path:
    """A run with an adapter on a base in 4 bits. Read only."""
    return fit(tmp_path_factory.mktemp("runs") / "sums", base)
