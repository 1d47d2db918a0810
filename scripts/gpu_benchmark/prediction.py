"""What the program's own plan says of a job, to stand beside what was measured."""

from __future__ import annotations

from typing import Any


def prediction(job: dict[str, Any]) -> dict[str, Any]:
    """The plan of the job's settings on the job's card, in bytes."""
    return {"absent": "this version has no plan"}
