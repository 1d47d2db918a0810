"""Push files to a model repository in one commit, after a look at what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from rl_lightning.types import UserError, first_line

TAG = "rl_lightning"
"""What every model card of ours has among its tags, by which a repository is known to be ours."""

_LOADED = (".json", ".safetensors", ".bin", ".gguf", ".jinja", ".model", ".txt")
"""How files end that programs read when they load a model."""

_ANSWERS = {
    401: "the hub does not accept the token (401); log in again by `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there (403); make one that may, or name an owner that is you or your organisation",
    404: "there is no such owner or repository, or the token may not see it (404)",
    409: "it was changed by somebody else meanwhile (409); push again",
    412: "it was changed by somebody else meanwhile (412); push again",
}


@dataclass(frozen=True)
class Repository:
    """A model repository on the hub.

    Attributes:
        name: owner/name.
        private: whether only its owner sees it.

    Raises:
        UserError: the name is no owner/name.
    """

    name: str
    private: bool = True

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise UserError(
                f"push: {self.name!r} is not allowed; it must be owner/name ({first_line(error)})"
            ) from error
        if self.name.count("/") != 1:
            raise UserError(f"push: {self.name!r} is not allowed; it must be owner/name")

    @property
    def visibility(self) -> str:
        """`private` or `public`."""
        return "private" if self.private else "public"


@dataclass(frozen=True)
class Found:
    """A repository as it is on the hub.

    Attributes:
        files: their names.
        commit: the newest one; a push is refused where another has come since.
    """

    files: frozenset[str]
    commit: str | None


def look(repository: Repository) -> Found | None:
    """What is in a repository that may be pushed to; None if there is no such repository yet. Changes nothing.

    Raises:
        UserError: it holds something else, or has another visibility; there is no token, or no network; the hub refuses.
    """
    with _in_one_line(repository.name):
        try:
            found = HfApi().model_info(repository.name, token=_token())
        except RepositoryNotFoundError as error:
            if error.response.status_code != 404:  # 401 is of this class too
                raise
            return None
    there = frozenset(each.rfilename for each in found.siblings or ()) - {".gitattributes"}
    if there and TAG not in (found.tags or ()):
        raise UserError(
            f"push: {repository.name} holds other content ({', '.join(sorted(there)[:3])}), which is left as it is; name another "
            "repository"
        )
    if bool(found.private) != repository.private:
        now = "private" if found.private else "public"
        raise UserError(
            f"push: {repository.name} is {now} on the hub, and a {repository.visibility} one was asked for; change it there, or "
            "ask for that"
        )
    return Found(there, found.sha)


def push(repository: Repository, files: Mapping[str, Path | bytes], message: str) -> str:
    """Push files in one commit, into a new repository where there is none.

    Large files are uploaded first; a push that was interrupted sends only those again that had not arrived.

    Args:
        repository: where.
        files: the name in the repository, and the file or its content.
        message: of the commit.

    Returns:
        the repository's address.

    Raises:
        UserError: as for `look`; a file cannot be read; or the upload was interrupted.
    """
    found = look(repository)
    _refuse_left_over(repository, found.files if found else (), files)
    with _in_one_line(repository.name):
        api, token = HfApi(), _token()
        if found is None:
            api.create_repo(repository.name, private=repository.private, token=token)
        added = [
            CommitOperationAdd(name, str(file) if isinstance(file, Path) else file) for name, file in files.items()
        ]
        parent = found.commit if found else None
        api.create_commit(repository.name, added, commit_message=message, token=token, parent_commit=parent)
    return address(repository)


def address(repository: Repository) -> str:
    """Where a browser finds it."""
    return f"{constants.ENDPOINT}/{repository.name}"


def _refuse_left_over(repository: Repository, there: Iterable[str], files: Mapping[str, Path | bytes]) -> None:
    left = sorted(name for name in there if name not in files and name.endswith(_LOADED))
    if left:
        raise UserError(
            f"push: {repository.name} holds {left[0]}, which would be loaded together with what is pushed; delete it there, or "
            "name another repository"
        )


def _token() -> str:
    token = get_token()
    if token is None:
        raise UserError("push: there is no token; log in by `hf auth login`, or set HF_TOKEN to a token that may write")
    return token


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UserError("push: HF_HUB_OFFLINE is set; unset it to push") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise UserError(
            f"push: {name}: {_ANSWERS.get(status) or f'the hub answered {status}: {first_line(error)}'}"
        ) from error
    except HTTPError as error:  # of the connection
        raise UserError(
            f"push: {constants.ENDPOINT} cannot be reached ({first_line(error)}); push again: what has arrived is not sent again"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # of a file, of what the hub says about the card, of Xet
        raise UserError(f"push: {name}: {first_line(error)}") from error
