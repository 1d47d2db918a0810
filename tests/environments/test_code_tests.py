"""Programs as answers: right ones pass their tests, and nothing that a wrong one does makes it right."""

from __future__ import annotations

import json
import pickle
import platform
import sys

import pytest

from rl_lightning.environments import CodeTests, EnvironmentMixture, QuestionFile, Questions, TaskSpec
from rl_lightning.environments.verifiers.code_tests import source
from rl_lightning.environments.verifiers.expected_tests import expected_tests
from rl_lightning.sandbox import programs
from rl_lightning.scoring import Scorer
from rl_lightning.types import UserError
from tests.hostile_programs import SECRET, hostile_programs

RUNS = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the kernel's filter is Linux's, on x86-64"
)
MBPP = "assert add(2, 3) == 5\nassert add(-1, 1) == 0\nassert add(0, y=0.5) == 0.5"
ADD = "def add(x, y): return x + y"
SHAPES = """
assert shapes([3, 1]) == {'low': 1, 'both': (1, 3)}  # a comment
assert set(shapes([2])['both']) == set((2, 2)), 'a message'
assert sorted(shapes([2])) == ['both', 'low']
"""
SCRIPT = json.dumps({"inputs": ["2\n1 2\n", "1\n7"], "outputs": ["3\n", "7"]})
CALLS = json.dumps({"fn_name": "pair", "inputs": [[1, [2]], [None, True]], "outputs": [[1, [2]], [None, True]]})
SUM = "n = int(input())\nprint(sum(map(int, input().split())))"

RIGHT = [
    (MBPP, ADD),
    (MBPP, f"```python\n{ADD}\n```"),
    (MBPP, f"Here it is:\n```\n{ADD}\n```\nIt adds."),
    (MBPP, "import operator\nadd = operator.add\nadd = lambda x, y: x + y"),
    (MBPP, f"{ADD}\nif __name__ == '__main__':\n    print(add(int(input()), 1))"),
    (
        MBPP,
        f"from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    a: B\n{ADD}",
    ),
    (str(MBPP.splitlines()), ADD),
    (json.dumps(MBPP.splitlines()), ADD),
    (SHAPES, "def shapes(x):\n    print(x)\n    return {'both': (min(x), max(x)), 'low': min(x)}"),
    ("assert count('aab') == {'a': 2, 'b': 1}", "from collections import Counter as count"),
    ("assert even(2)\nassert not even(3)", "def even(n): return [] if n % 2 else 'yes'"),
    ("assert third(3) == 0.3333333333333333", "def third(n): return 1 / n"),
    ("assert fact(30) == 265252859812191058636308480000000", "from math import factorial as fact"),
    (SCRIPT, SUM),
    (
        SCRIPT,
        f"import sys\ndef main():\n    {SUM.replace(chr(10), chr(10) + '    ')}\nif __name__ == '__main__':\n    main()",
    ),
    (SCRIPT, "import sys\nn, *x = open(0).read().split()\nsys.stdout.write(f'{sum(map(int, x))}  \\n\\n')\nexit()"),
    (CALLS, "def pair(a, b): return a, b"),
    (CALLS, "class Solution:\n    def pair(self, a, b): return [a, b]"),
]
WRONG = [
    (MBPP, "def add(x, y): return x - y"),
    (MBPP, "def add(x, y): return 5"),
    (MBPP, "def plus(x, y): return x + y"),
    (MBPP, "def add(x, y): return str(x + y)"),
    (MBPP, f"```python\n{ADD}\n```\nor\n```python\n{ADD}\n```"),
    (MBPP, ADD + "\n)"),
    (MBPP, ""),
    (MBPP, MBPP),
    (SHAPES, "def shapes(x): return {'both': [min(x), max(x)], 'low': min(x)}"),
    ("assert third(3) == 0.3333", "def third(n): return 1 / n"),
    ("assert even(2)\nassert not even(3)", "def even(n): return True"),
    ("assert f(1) == None", "def f(n): raise ValueError"),
    (SCRIPT, SUM + "\nprint()\nprint(1)"),
    (SCRIPT, SUM + "\nexit(1)"),
    (SCRIPT, "print(' 3')"),
    (SCRIPT, "print(3); print(7)"),
    (CALLS, "def pair(a, b): return b, a"),
    (CALLS, "def pair(a, b): return {1: a, 2: b}"),
]
REFUSED = [
    ("", "there are no tests"),
    ("x = 1", "only assert lines can be tests, not 'x = 1'"),
    ("assert f(1) == 2\nimport os", "only assert lines can be tests, not 'import os'"),
    ("assert f(1) ==", "line 1: invalid syntax"),
    ("[1, 2]", "only assert lines can be tests, not '1'"),
    ("[assert]", "the tests are not Python"),
    ("assert f(1) == g(2)", "the right result must be a literal"),
    ("assert f(1) == 2 + x", "the right result must be a literal"),
    ("assert f(1) == set([[]])", "the right result must be a literal"),
    ("assert f(1) == 1j", "cannot give a complex back"),
    ("assert f(1) == ...", "cannot give a ellipsis back"),
    ("assert f(1) == " + "[" * 150 + "]" * 150, "nested"),
    ("assert f(1) == " + "[" * 5000 + "]" * 5000, "nested"),
    (f"assert f(1) == {'x' * 100_000!r}", "longer than"),
    ("assert f(1) == 2 == 2", "a truth"),
    ("assert f(1) != 2", "a truth"),
    ("assert f(1) < 2", "a truth"),
    ("assert f(1) == 2 and True", "a truth"),
    ("assert math.isclose(f(1), 2)", "a truth"),
    ("assert abs(f(1) - 2) < 0.1", "a truth"),
    ("assert all(f(x) for x in (1, 2))", "a truth"),
    ("assert f(g(1))", "a truth"),
    ("assert (f(1) == 2) == True", "a truth"),
    ("assert f(1) == 2 == True", "a truth"),
    ("assert int(f(1) == 2) == 1", "makes no comparison"),
    ("assert 1 + 1 == 2", "must be `assert CALL == LITERAL`"),
    ("assert 5 == f(1)", "the right result must be a literal"),
    ("{", "Expecting"),
    ('{"inputs": ["1"]}', "two lists of the same length"),
    ('{"inputs": ["1"], "outputs": []}', "two lists of the same length"),
    ('{"inputs": [], "outputs": []}', "there are no tests"),
    ('{"inputs": [1], "outputs": ["1"]}', "must be texts"),
    ('{"inputs": ["1"], "outputs": [1]}', "must be texts"),
    ('{"inputs": [1], "outputs": [1], "fn_name": "f"}', "a list of arguments"),
    ('{"inputs": [[1]], "outputs": [NaN], "fn_name": "f"}', "NaN is not JSON"),
    ('{"inputs": [[1]], "outputs": [1], "fn_name": "f()"}', "the name of a function"),
    ('{"inputs": [[1]], "outputs": [1], "fn_name": "class"}', "the name of a function"),
]


@pytest.fixture(scope="module")
def hasty():
    return CodeTests(seconds=0.3)


@pytest.fixture(scope="module")
def patient():
    return CodeTests(seconds=20)


@RUNS
@pytest.mark.parametrize(("expected", "answer"), RIGHT)
def test_right_programs(expected, answer, patient):
    patient.check_expected(expected)
    assert patient(expected, answer) == 1
    assert pickle.loads(pickle.dumps(patient))(expected, answer) == 1


@RUNS
@pytest.mark.parametrize(("expected", "answer"), WRONG)
def test_wrong_programs(expected, answer, patient):
    assert patient(expected, answer) == 0


@RUNS
def test_a_fraction_counts_the_tests_that_are_passed_one_by_one():
    """What one test did to its process is not there in the next."""
    program = "import math, sys\ndef add(x, y):\n    if x < 0: sys.exit()\n    math.left = x, y\n    return x + y"
    assert CodeTests(fraction=True, seconds=20)(MBPP, program) == pytest.approx(2 / 3)
    assert CodeTests(seconds=20)(MBPP, program) == 0


@pytest.mark.parametrize(("expected", "said"), REFUSED)
def test_tests_that_cannot_be_used_are_refused(expected, said):
    with pytest.raises(ValueError) as error:
        expected_tests(expected)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fence_is_taken_off_and_nothing_else():
    assert source("```python\nx = 1\n```") == source("Text\n```Py\nx = 1\n```\nmore") == "x = 1\n"
    for text in ("x = '```'", "```\nx = 1", "```sql\nx\n```", "``` x ```", "```\na\n```\n```\nb\n```"):
        assert source(text) == text


@RUNS
@pytest.mark.parametrize("program", hostile_programs("MARKER"), ids=lambda p: p[:60].encode("unicode_escape").decode())
def test_a_hostile_program_is_not_paid_and_the_next_right_one_is(program, tmp_path, hasty, patient):
    launcher, marker = programs.runner(512).launcher, tmp_path / "marker"
    marker.with_suffix(".secret").write_text(json.dumps(SECRET))
    answer = program.replace("MARKER", str(marker))
    assert hasty(f"assert f(3) == {SECRET}\nassert f(4) == 0", answer) == 0
    assert hasty(json.dumps({"inputs": ["3\n"], "outputs": [" ".join(map(str, SECRET))]}), answer) == 0
    assert not marker.exists()
    assert patient(f"assert f(3) == {SECRET}\nassert f(4) == 0", f"def f(n): return {SECRET} if n == 3 else 0") == 1
    assert programs.runner(512).launcher == launcher


def test_there_are_many_hostile_programs():
    assert len(set(hostile_programs("x"))) == len(hostile_programs("x")) >= 120


@RUNS
def test_the_right_results_are_never_sent(monkeypatch):
    sent = []
    write = programs._write
    monkeypatch.setattr(programs, "_write", lambda to, data: (sent.append(data), write(to, data)))
    verifier = CodeTests(seconds=20)
    assert verifier(f"assert f(3) == {SECRET}", f"def f(n): return {SECRET[:1]} + ['kes' + 'trel']") == 1
    assert verifier(json.dumps({"inputs": ["3"], "outputs": ["kestrel"]}), "print('kes' + 'trel')") == 1
    assert sum(b"kes' + 'trel" in data for data in sent) == 2
    assert not any(b"kestrel" in data for data in sent)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seconds": 0}, "verifier.seconds: 0 is not allowed"),
        ({"seconds": float("inf")}, "verifier.seconds: inf"),
        ({"memory_mib": 10}, "verifier.memory_mib: 10 is not allowed; it must be 64 or more"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(UserError, match=said):
        CodeTests(**settings)


def test_a_system_that_cannot_hold_programs_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(UserError, match="^programs that a model wrote: run only on .*, not on Darwin on arm64$"):
        CodeTests()


def of(answer):
    return f"<think></think><answer>{answer}</answer>"


@pytest.fixture
def questions(tmp_path):
    rows = [
        {"question": "Write add.", "answer": MBPP},
        {"question": "Write a script that adds.", "answer": SCRIPT},
        {"question": "Write even.", "answer": ["assert even(2)", "assert not even(3)"]},
    ]
    path = tmp_path / "code.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@RUNS
def test_the_scorer_judges_programs_in_its_workers(questions):
    file = QuestionFile(Questions(path=str(questions), verifier=CodeTests(seconds=0.5, fraction=True)))
    assert (
        file.config
        == QuestionFile(Questions(path=str(questions), verifier=CodeTests(seconds=0.5, fraction=True))).config
    )
    mixture = EnvironmentMixture({"code": TaskSpec(environment=file)})
    problems = [mixture.problem("code", n, n) for n in range(3)]
    answers = {MBPP: ADD, SCRIPT: f"```python\n{SUM}\n```"}
    right = [answers.get(p.expected, "def even(n): return n % 2 == 0") for p in problems]
    scorer = Scorer(mixture, workers=2, seconds=60)
    assert [s.exact for s in scorer(problems, list(map(of, right)))] == [1, 1, 1]
    add = next(p for p in problems if p.expected == MBPP)
    texts = ["while True: pass", "def add(x, y): return 5", "import os; os.kill(os.getppid(), 9)", "def add(", ADD]
    scores = scorer([add] * len(texts), list(map(of, texts)))
    assert [(round(s.partial, 2), s.failure) for s in scores] == [
        (0, None),
        (0.33, None),
        (0, None),
        (0, None),
        (1, None),
    ]
    scorer.close()


@RUNS
def test_a_program_that_takes_longer_than_the_scorer_waits_costs_its_own_answer(questions):
    file = QuestionFile(Questions(path=str(questions), verifier=CodeTests(seconds=600)))
    mixture = EnvironmentMixture({"code": TaskSpec(environment=file)})
    add = next(p for p in (mixture.problem("code", n, n) for n in range(3)) if p.expected == MBPP)
    scorer = Scorer(mixture, workers=1, seconds=2)
    slow, right = scorer([add] * 2, [of("while True: pass"), of(ADD)])
    assert (slow.exact, slow.failure, right.exact, right.failure) == (0, "timeout", 1, None)
    scorer.close()


@RUNS
def test_a_row_whose_tests_cannot_be_used_is_refused_with_its_number(tmp_path):
    (tmp_path / "code.jsonl").write_text('{"question": "q", "answer": "assert f(1) < 2"}\n')
    with pytest.raises(UserError, match="line 1: CodeTests: a truth can only be that of a call with literals"):
        QuestionFile(Questions(path=str(tmp_path / "code.jsonl"), verifier=CodeTests()))


@RUNS
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (ADD, "passes all"),
        ("def add(x, y): return x * y", "gave "),
        ("def add(x, y) return x", "not Python: "),
        ("def add(x, y): return 1 / 0", "gave no result: it raised an exception"),
        ("while True: pass", "took longer than 0.5 s"),
    ],
)
def test_why_a_program_fails_is_said(program, said):
    verifier = CodeTests(seconds=0.5)
    assert said in verifier.explain(MBPP, program)
    assert ("passes" in said) == (verifier(MBPP, program) == 1)
