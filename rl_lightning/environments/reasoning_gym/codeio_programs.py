"""The programs of reasoning-gym's codeio, without those that reach out of their process.

Upstream's 3,002 programs run when a problem is made. Some write or delete files in the working directory and elsewhere, one of them
the shell's history, start processes, connect, or read what is on the machine. In workers they cannot, and fail; but `tasks`, `chat`
and `data.num_workers: 0` make problems in the user's own process.
"""

from __future__ import annotations

import functools
import re
from typing import Any

REACHES_OUT = re.compile(
    r"\b(open|input|getpass)\s*\(|\.(to_csv|savefig|tofile)\("
    r"|\b(os|shutil|subprocess|multiprocessing|socket|requests|urllib|tempfile|ctypes|sqlite3)\b"
)
"""What is in the text of all 20 programs that did so when each was run on four inputs, and of some that did not."""


def leave_out_programs() -> None:
    """Leave them out of what upstream's data sets draw from, which is loaded anew whenever one is created."""
    from reasoning_gym.code.codeio import CodeIODataset

    programs: list[dict[str, Any]] = CodeIODataset._jsonl_data or []
    CodeIODataset._jsonl_data = [
        each for each in programs if not _reaches_out(each["code_sample"], each["input_generator"])
    ]


@functools.cache  # a composite is created for each of its problems, and this takes half a second
def _reaches_out(program: str, generator: str) -> bool:
    return bool(REACHES_OUT.search(f"{program}\n{generator}"))
