"""The wheel and the sdist: everything that ships is in them, and the installed copy alone runs the quickstart by its name."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import rl_lightning
from rl_lightning.cli.main import main
from tests.conftest import ROOT

BUILT = (
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "CITATION.cff",
)
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc")


def files_below(directory: Path) -> set[str]:
    found = {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


SHIPPED = {f"rl_lightning/{name}" for name in files_below(ROOT / "rl_lightning")} | {
    f"rl_lightning/configs/{name}" for name in files_below(ROOT / "configs")
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A directory with the sdist, and with the wheel built from it, as pip and PyPI's `build` do."""
    place = tmp_path_factory.mktemp("package")
    source, out = place / "source", place / "dist"
    source.mkdir()
    for name in ("rl_lightning", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=JUNK)
    for name in (*BUILT, "constraints.txt"):
        shutil.copy(ROOT / name, source)
    build_backend(source, f"build_sdist({str(out)!r})")
    with tarfile.open(next(out.glob("*.tar.gz"))) as file:
        file.extractall(place / "unpacked", filter="data")
    build_backend(next((place / "unpacked").iterdir()), f"build_wheel({str(out)!r})")
    return out


def build_backend(source: Path, call: str) -> None:
    subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; build_meta.{call}"],
        cwd=source,
        check=True,
        capture_output=True,
    )


def test_every_file_is_in_the_wheel(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert inside == SHIPPED
        about = Parser().parsestr(wheel.read(f"rl_lightning-{rl_lightning.__version__}.dist-info/METADATA").decode())
        license = wheel.read(f"rl_lightning-{rl_lightning.__version__}.dist-info/licenses/LICENSE").decode()
    assert about["Version"] == rl_lightning.__version__
    assert about.get_payload().startswith("# rl_lightning")
    assert about["License"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in license


def test_the_sdist_holds_the_configs_once_and_no_tests(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {f"configs/{name}" for name in files_below(ROOT / "configs")} <= names
    assert {"LICENSE", "CITATION.cff", "CHANGELOG.md", "constraints.txt"} <= names
    assert not [name for name in names if name.startswith(("tests", "rl_lightning/configs"))]


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """A directory with the wheel's content and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(target), str(next(built.glob("*.whl")))], check=True, capture_output=True)
    return target


def run_installed(installed: Path, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the console script where the installed copy comes before that of this checkout."""
    # safe_path: this directory is not put on the path
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"}
    script = installed / "bin" / "rl-lightning"
    return subprocess.run(
        [sys.executable, str(script), *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.name == "nt", reason="the script is an .exe there")
def test_the_installed_copy_runs_the_quickstart_by_its_name_from_another_directory(installed, tmp_path):
    where = tmp_path / "sitecustomize.py"  # says which copy was imported, at the end of the very process that trains
    where.write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: 'rl_lightning.module' in sys.modules and open('imported', 'a').write("
        "sys.modules['rl_lightning.module'].__file__ + '\\n'))\n"
    )
    shutil.copy(where, installed)
    short = ["--trainer.max_steps=2", "--model.sampling.max_new_tokens=8", "--data.eval_num_samples=2"]
    short += ["--data.prompts_per_step=2", "--model.sampling.num_generations=2"]
    done = run_installed(installed, tmp_path, "fit", "--config", "quickstart", *short)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "outputs" / "quickstart"
    assert (run / "checkpoint-2" / "adapter_model.safetensors").is_file()
    assert set((tmp_path / "imported").read_text().splitlines()) == {str(installed / "rl_lightning" / "module.py")}
    saved = (run / "config.yaml").read_text()
    assert saved.startswith(f"# rl_lightning {rl_lightning.__version__}\n")
    assert yaml.safe_load(saved)["data"]["datasets"].keys() == {
        "basic_arithmetic",
        "chain_sum",
        "leg_counting",
        "spell_backward",
    }


@pytest.mark.skipif(os.name == "nt", reason="the script is an .exe there")
def test_usage_names_the_program_as_it_was_called(installed, tmp_path):
    assert run_installed(installed, tmp_path).stdout.startswith("usage: rl-lightning {fit,")
    assert run_installed(installed, tmp_path, "chat", "--help").stdout.startswith("usage: rl-lightning chat ")
    assert run_installed(installed, tmp_path, "report", "--help").stdout.startswith("usage: rl-lightning report ")
    assert run_installed(installed, tmp_path, "--version").stdout == f"rl_lightning {rl_lightning.__version__}\n"


@pytest.mark.parametrize("words", [[], ["chat", "--help"], ["compare", "--help"], ["fit", "--help"]], ids=str)
def test_usage_of_the_module_is_how_it_was_called(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/rl_lightning/__main__.py"])
    with contextlib.suppress(SystemExit):  # argparse, after --help
        main(words)
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m rl_lightning {words[0] if words and words[0] != 'fit' else ''}"), out[:200]


def test_one_version_and_one_license_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    declared = ConfigParser()
    declared.read(ROOT / "setup.cfg")
    assert declared["metadata"]["version"] == "attr: rl_lightning.__version__"
    assert str(citation["version"]) == rl_lightning.__version__
    assert citation["license"] == declared["metadata"]["license"] == "Apache-2.0"
    assert f"\n## {rl_lightning.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_citation_has_what_its_format_requires():
    """https://citation-file-format.github.io: cff-version 1.2.0."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == "rl_lightning"
    assert citation["type"] == "software"
    assert isinstance(citation["message"], str)
    assert citation["authors"]
    assert all(author.keys() <= {"name", "given-names", "family-names", "orcid"} for author in citation["authors"])
