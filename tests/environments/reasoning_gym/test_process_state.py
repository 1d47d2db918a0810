"""Programs of codeio, which run where a problem is drawn: they touch nothing, and leave nothing to the next one."""

from __future__ import annotations

import decimal
import gzip
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from reasoning_gym.code import codeio

from rl_lightning.environments import EnvironmentMixture, TaskSpec
from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask
from rl_lightning.sandbox.lock_down import refusing

HEAD = "import decimal, os, subprocess, sys, tempfile\nimport numpy as np\n"
TOUCHES = {
    "a file": "open('found', 'w').close()",
    "a directory": "os.mkdir('found')",
    "a temporary file": "tempfile.NamedTemporaryFile(dir='.', delete=False).close()",
    "a program": "subprocess.run([sys.executable, '-c', 'print(1)'])",
    "an environment variable": "os.environ['RL_LIGHTNING_FOUND'] = '1'",
    "its input": "input()",
    "the terminal": "print('found'); print('found', file=sys.stderr); np.log(np.zeros(1)); 1 / 0",
    "the end of this process": "sys.exit(3)",
}


@pytest.fixture
def codeio_of(tmp_path, monkeypatch):
    """Make codeio's dataset of programs with these bodies, and the working directory an empty one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(codeio, "get_data_file_path", lambda name: tmp_path / name)

    def make(*bodies: str, **config) -> ReasoningGymTask:
        with gzip.open(tmp_path / "codeio.jsonl.gz", "wt", encoding="utf-8") as file:
            for body in bodies:
                program = {
                    "task_description": body,
                    "input_output_spec": "",
                    "code_sample": f"{HEAD}\ndef main_solution(a):\n    {body}\n    return str(decimal.Decimal(1) / a)",
                    "input_generator": "def generate_inputs(rng):\n    return {'a': 7}",
                    "difficulty": 6 if body == bodies[0] else 7,
                }
                file.write(json.dumps(program) + "\n")
        return ReasoningGymTask("codeio", config)

    return make


@pytest.mark.parametrize("body", TOUCHES.values(), ids=TOUCHES.keys())
def test_a_program_touches_nothing_outside_of_a_worker_either(body, codeio_of, capfd, monkeypatch):
    monkeypatch.delenv("RL_LIGHTNING_FOUND", raising=False)
    task = codeio_of(body)
    with pytest.raises(GenerationFailed):
        task.problem(0)
    assert list(Path.cwd().iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_problem_is_the_same_after_any_other_program(codeio_of):
    precise, rounded = "pass", "decimal.getcontext().prec = 3; np.seterr(all='raise')"
    task = codeio_of(precise, rounded)
    numpy_before, precision = np.geterr(), decimal.getcontext().prec
    problems = {seed: task.problem(seed) for seed in range(8)}
    assert {precise in problem.question for problem in problems.values()} == {True, False}
    for seed in reversed(problems):
        assert task.problem(seed).question == problems[seed].question
        assert task.problem(seed).expected == problems[seed].expected
    assert (np.geterr(), decimal.getcontext().prec) == (numpy_before, precision)


def test_a_dataset_draws_from_its_own_programs_whichever_was_created_last(codeio_of):
    easy = codeio_of("pass", "a = 3", difficulty=6)
    questions = [easy.problem(seed).question for seed in range(6)]
    hard = easy.at_level({"difficulty": 7})
    assert not {hard.problem(seed).question for seed in range(6)} & set(questions)
    assert [easy.problem(seed).question for seed in range(6)] == questions


def test_only_the_thread_that_refuses_does_and_only_for_a_while(tmp_path):
    def write(name: str) -> None:
        (tmp_path / name).write_text("")

    other = threading.Thread(target=write, args=("other",))
    with refusing():
        with pytest.raises(PermissionError, match="no writing"):
            write("inside")
        with refusing(), pytest.raises(PermissionError):
            write("inside")
        with pytest.raises(PermissionError):
            write("inside")
        other.start()
        other.join()
    write("after")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["after", "other"]


def test_an_environment_that_ends_the_process_has_no_problem(monkeypatch):
    mixture = EnvironmentMixture({"codeio": TaskSpec()})

    def leave(seed: int):
        raise SystemExit(3)

    monkeypatch.setattr(mixture.tasks["codeio"], "problem", leave)
    with pytest.raises(GenerationFailed, match="SystemExit: 3"):
        mixture.problem("codeio", 0, 0)
