"""Tables in the pages of docs/."""

from __future__ import annotations

from pathlib import Path

from rl_lightning.types import UserError
from rl_lightning.whole_files import write_whole


def put_into(page: Path, section: str, text: str) -> None:
    """Replace what stands between `<!-- section -->` and `<!-- /section -->`.

    Raises:
        UserError: the page has no such section.
    """
    before, start, rest = page.read_text(encoding="utf-8").partition(f"<!-- {section} -->\n")
    _, end, after = rest.partition(f"<!-- /{section} -->")
    if not (start and end):
        raise UserError(f"{page}: no lines `<!-- {section} -->` and `<!-- /{section} -->` to put the table between")
    write_whole(page, f"{before}{start}{text}\n{end}{after}")
