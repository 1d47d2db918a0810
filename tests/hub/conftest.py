"""The hub of these tests is on this machine."""

from __future__ import annotations

from tests.hub.fixtures import hub  # noqa: F401
