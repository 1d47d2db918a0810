"""Write generated tables into the pages of docs/, between a section's marks."""

from __future__ import annotations

from pathlib import Path

from rl_lightning.checkpointing.atomic_files import write_atomically
from rl_lightning.types import UserError


def replace_section(page: Path, section: str, text: str) -> None:
    """Replace the text between `<!-- section -->` and `<!-- /section -->`.

    Raises:
        UserError: the page has no such section.
    """
    before, start, rest = page.read_text(encoding="utf-8").partition(f"<!-- {section} -->\n")
    _, end, after = rest.partition(f"<!-- /{section} -->")
    if not (start and end):
        raise UserError(f"{page}: no lines `<!-- {section} -->` and `<!-- /{section} -->` to put the table between")
    write_atomically(page, f"{before}{start}{text}\n{end}{after}")
