"""The docs are true: settings, metrics, commands, defaults and limits that they name are those of the code."""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import fields

import pytest

from rl_lightning.cli.lightning_cli import RLCommandLine
from rl_lightning.cli.main import main
from rl_lightning.curriculum import Curriculum
from rl_lightning.environments.levels import MAX_SECONDS, PROBLEMS_TRIED
from rl_lightning.report import curves, samples, watch
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
METRIC_GROUPS = "reward|scoring|completion|groups|sft|curriculum|policy|time|data|memory|eval"
SHORT_FOR_MODEL = ("policy", "sampling", "objective")
"""Sections that the docs name without the `model.` before them."""
OF_ENTRIES = ("data.datasets", "data.own_examples", "data.curriculum")
"""Settings whose own settings are not in the help of `fit`."""
FILE_ENDINGS = ("py", "ckpt", "json", "safetensors", "csv", "jsonl", "yaml", "parquet", "md")
COMMANDS = ("fit", "validate", "compare", "report", "plan", "chat", "export", "push", "serve", "tasks")


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The names of all options that the command's help shows."""
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    return set(re.findall(r"--([a-z_]+(?:[.-][a-z_]+)*)", capsys.readouterr().out))


@pytest.fixture(scope="module")
def settings() -> set[str]:
    """All settings of `fit`, by their dotted names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["rl_lightning", "fit"])
        patch.setattr(RLCommandLine, "parse_arguments", lambda self, parser, args: parsers.append(parser))
        patch.setattr(RLCommandLine, "instantiate_classes", lambda self: None)
        parsers: list = []
        with pytest.raises(Exception):  # noqa: B017, nothing was parsed
            RLCommandLine()
    text = parsers[0]._subcommands_action._name_parser_map["fit"].format_help()
    assert "--model.policy.lora_r" in text
    return set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)*)", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page, settings):
    """In backticks (`data.examples: 2`), and as an option (--data.examples=2)."""
    text = page.read_text()
    sections = {name.partition(".")[0] for name in settings if "." in name}
    named = set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)+)", text))
    for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?=[`:= ])", text):
        first, last = name.partition(".")[0], name.rpartition(".")[2]
        if (first in sections or first in SHORT_FOR_MODEL) and last not in FILE_ENDINGS:
            named.add(f"model.{name}" if first in SHORT_FOR_MODEL else name)
    entries = {name for name in named if name.startswith(tuple(f"{setting}." for setting in OF_ENTRIES))}
    assert named - entries - settings == set()
    of_curriculum = {name.rpartition(".")[2] for name in entries if name.startswith("data.curriculum.")}
    assert of_curriculum <= {field.name for field in fields(Curriculum)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_is_named_is_described(page):
    described = (ROOT / "docs" / "metrics.md").read_text()
    for name in set(re.findall(rf"`((?:{METRIC_GROUPS})/[a-z_]+)`", page.read_text())):
        assert f"`{name}`" in described or f"`{name}/" in described, name


def test_every_metric_that_is_described_is_logged():
    """Its last part, or that without its first word where names are put together (`skipped_` and a reason), is in the source."""
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    source = "".join(path.read_text() for path in (ROOT / "rl_lightning").rglob("*.py") if "report" not in path.parts)
    words = set(re.findall(r"[a-z_]+", source))
    assert len(names) > 50
    for name in names:
        last = re.sub("<.*|…", "", name.rpartition("/")[2]).rstrip("_")
        assert not last or {last, last.partition("_")[2]} & words, name


def commands(text: str) -> list[list[str]]:
    """The commands of this program that a page shows, without the words before them."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [
        re.match(r"^(?: {4}|\$ )?(?:torchrun |MASTER_ADDR|python ).*?-m rl_lightning (.*)", line) for line in lines
    ]
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_and_has_these_options(page, settings, capsys):
    for words in commands(page.read_text()):
        assert words[0] in COMMANDS, words
        options = {word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")}
        # One task, or a setting of it, is changed, added or taken out.
        options = {"data.datasets" if each.startswith("data.datasets") else each for each in options}
        shown = help_of(words[0], capsys) if words[0] not in ("fit", "validate") else set()
        assert options - shown - settings - {"config", "ckpt_path"} == set(), words
        for config in (word for word in words if word.startswith("configs/")):
            assert (ROOT / config).is_file(), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_is_there_and_has_these_options(page):
    parts = "".join(path.read_text() for path in (ROOT / "scripts").rglob("*.py"))
    for line in page.read_text().splitlines():
        for script, rest in re.findall(r"python (scripts/[a-z_]+\.py)((?: [^`&#|]*)?)", line):
            assert (ROOT / script).is_file(), line
            for option in re.findall(r"--[a-z][a-z-]*(?![a-z_.])", rest):
                assert f'"{option}"' in parts, line


@pytest.mark.parametrize("command", ["plan", "export", "push", "serve", "chat", "compare", "report", "tasks"])
def test_help_names_every_option_of_the_usage(command, capsys):
    """What `python -m rl_lightning` shows of a command, its own help explains."""
    assert main([]) == 0
    usage = "".join(
        line for line in capsys.readouterr().out.splitlines(keepends=True) if line.startswith(f"  {command} ")
    )
    options = set(re.findall(r"--([a-z_]+(?:-[a-z]+)*)", usage))
    assert options - help_of(command, capsys) == set()


def test_defaults_of_the_curriculum_are_those_of_the_table():
    text = (ROOT / "docs" / "curriculum.md").read_text()
    shown = {}
    for names, values in re.findall(r"^\| (`[a-z_`, ]+) \| ([\d., ]+|true|false) \|", text, re.MULTILINE):
        shown |= dict(zip(re.findall("`([a-z_]+)`", names), values.split(", "), strict=True))
    assert shown == {field.name: str(field.default).lower() for field in fields(Curriculum)}


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("curriculum.md", f"The time limit is {({10: 'ten'})[MAX_SECONDS]} seconds, or `data.problem_seconds`"),
        ("curriculum.md", f"generating its {({8: 'eight'})[PROBLEMS_TRIED]} trial problems"),
        ("report.md", f"http://{watch.HOST}:{watch.PORT}/"),
        ("report.md", f"at most {samples.MOST_COMPLETIONS:,} completions"),
        ("report.md", f"Texts longer than {samples.LONGEST_TEXT:,} characters"),
        ("report.md", f"more than {curves.MOST_POINTS} points"),
        ("report.md", f"one of {({4: 'four'})[curves.COLOURS]} colours"),
    ],
)
def test_limits_are_those_of_the_code(page, said):
    assert said in (ROOT / "docs" / page).read_text()


def test_the_index_names_every_page_and_the_readme_names_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {path.name for ending in ("md", "ipynb") for path in (ROOT / "docs").glob(f"*.{ending}")} - {"index.md"}
    assert set(re.findall(r"\]\(([a-z_]+\.(?:md|ipynb))\)", index)) == pages
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["performance.md", "ablations.md", "experiments.md"])
def test_a_dense_page_begins_with_its_three_findings(page):
    first = (ROOT / "docs" / page).read_text().split("\n\n")[1]
    assert first.startswith("**Three findings")
    assert all(f"({number})" in first for number in (1, 2, 3))
