"""Push a finished export to the hub, or show what would go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rl_lightning.checkpointing.model_files import read_json
from rl_lightning.hub.pushing import Repository, address, push
from rl_lightning.report.model_card import CARD
from rl_lightning.types import UserError

ABOUT = "rl_lightning_export.json"
"""What the export is, for programs: format, base, step, prompt, verification."""


def share(directory: Path, repository: Repository, dry_run: bool) -> str:
    """Push an export.

    Args:
        directory: the export.
        repository: where to.
        dry_run: only say what would go, and ask the hub nothing.

    Returns:
        what was done, or would be.

    Raises:
        UserError: it is no export that may be pushed, or the push failed.
    """
    files = files_to_push(directory, repository)
    if dry_run:
        return _listing(files, repository)
    about = read_json(directory / ABOUT)
    push(repository, files, f"{about['format']}, step {about['step']}")
    return f"pushed to {address(repository)}, {repository.visibility}"


def files_to_push(directory: Path, repository: Repository) -> dict[str, Path | bytes]:
    """The files of an export by their name in the repository. The card loads it from there, so it has the repository's name.

    Raises:
        UserError: the directory is no export, or failed its verification.
    """
    if not (directory / ABOUT).is_file():
        raise UserError(
            f"push: {directory} is not an export: there is no {ABOUT} in it; make one by the command export"
        )
    if faults := read_json(directory / ABOUT)["faults"]:
        raise UserError(f"push: {directory} failed its verification, so it is not pushed: {faults[0]}")
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    files: dict[str, Path | bytes] = {name: path for name, path in names.items() if not name.startswith(".")}
    if CARD in files:
        text = (directory / CARD).read_text(encoding="utf-8")
        name = directory.resolve().name
        download = f"```sh\nhf download {repository.name} --local-dir {name}\nllama-cli"
        files[CARD] = text.replace(f'"{name}"', f'"{repository.name}"').replace("```sh\nllama-cli", download).encode()
    return files


def _listing(files: Mapping[str, Path | bytes], repository: Repository) -> str:
    sizes = {name: len(file) if isinstance(file, bytes) else file.stat().st_size for name, file in files.items()}
    lines = [f"  {size:>15,}  {name}" for name, size in sizes.items()]
    return "\n".join(
        [
            f"would be pushed to {address(repository)}, {repository.visibility}:",
            *lines,
            f"  {sum(sizes.values()):>15,}  bytes in {len(sizes)} files",
        ]
    )
