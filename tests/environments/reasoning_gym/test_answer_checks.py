"""What no right answer looks like: cheats that upstream pays for, and text that would be run, are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lightning.environments.reasoning_gym.answer_checks.checks import RULES, refuse_answer
from rl_lightning.environments.reasoning_gym.task import task_names
from tests.conftest import ROOT
from tests.environments.reasoning_gym.right_answers import made, problems, right_answer, score, solve_boxnet, task
from tests.environments.work_done import lines_run
from tests.hostile_answers import hostile_answers

RUN_AS_CODE = [
    *("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication"),
    *("puzzle24", "simple_integration", "spiral_matrix", "string_insertion", "coin_flip"),
]
"""Nine whose scorers evaluate the answer, and one that a large exponent hangs."""


def _colour_list(right, entry):
    return json.dumps([*json.loads(right).values(), *entry["metadata"]["puzzle"]["vertices"]])


def _bumped(right, entry):
    """A first move that the board forbids, which upstream skips."""
    moves = (f"{letter}{sign}5 {right}" for letter in "ABCDEFGHIJ" for sign in "+-")
    return next(answer for answer in moves if score(task("rush_hour"), answer, entry) == 1.0)


def _off_by_a_half(right, entry):
    """The greatest number made greater, so that the list stays sorted."""
    numbers = [float(number) for number in entry["metadata"]["sorted_numbers"]]
    numbers[numbers.index(max(numbers))] += 0.5
    return json.dumps(list(map(str, numbers)))


def _carry_targets(right, entry):
    plan = solve_boxnet(entry, "target")
    return plan if "move(target" in plan else "[]"


PAID = {
    "advanced_geometry": [("4°5", made("45°", task_type="angle_measure")), lambda r, e: f"{r}, (0, 0)"],
    "boxnet": [_carry_targets],
    "calendar_arithmetic": [("7", made("-1", task="recurring_event_day"))],
    "codeio": [
        ('{"a": "1"}', made('{"a": 1}')),
        ('{"a": true}', made('{"a": 1}')),
        ('{"item_0": {"a": 1}}', made('[{"a": 1}]')),
    ],
    "coin_flip": [lambda r, e: r[:3] if len(r) > 4 else "x", lambda r, e: r[:1]],
    "complex_arithmetic": ["nan", "nan+nanj"],
    "countdown": [("2.5*40", made("2*5*10", numbers=[2, 5, 40], target=100))],
    "cryptarithm": [lambda r, e: f"{r[0]}={(int(r[2]) + 1) % 10},{r}"],
    "decimal_arithmetic": [("0", made("0.0004")), ("1.98", made("1.979")), lambda r, e: str(round(float(r) + 4e-4, 8))],
    "figlet_font": [("ABCDEFGHIJxx", made("ABCDEFGHIJKL"))],
    "fraction_simplification": [lambda r, e: f"{r.strip('$')} or 1/2"],
    "game_of_life": [lambda r, e: r[:-1] + ",[0]]"],
    "game_of_life_halting": ["garbage", "0"],
    "graph_color": [_colour_list],
    "group_anagrams": [lambda r, e: json.dumps([dict.fromkeys(words, 0) for words in json.loads(r)])],
    "gsm_symbolic": [lambda r, e: f"-{r}", lambda r, e: f"{r} or 77"],
    "intermediate_integration": [lambda r, e: "Integral({integrand}, {variable})".format(**e["metadata"])],
    "kakurasu": [lambda r, e: r.replace("0", "0 7", 1)],
    "knights_knaves": [lambda r, e: f"It is false that {r}"],
    "letter_jumble": [lambda r, e: f"{r} and more"],
    "number_format": [("10.004", made("10.009", candidates=[10.009, 10.004], solution=10.009))],
    "number_sorting": [
        lambda r, e: json.dumps(["nan"] * r.count(",") + ["nan"]),
        _off_by_a_half,
    ],
    "polynomial_equations": [("anything", made(""))],
    "polynomial_multiplication": [
        lambda r, e: f"expand({e['metadata']['polynomial_expr']})",
        lambda r, e: r + " + 1 - 1",
    ],
    "pool_matrix": [
        lambda r, e: "\n".join(" ".join(str(float(n) * 1.009) for n in row.split()) for row in r.split("\n"))
    ],
    "power_function": [lambda r, e: f"{float(r) * 1.0001:.6e}"],
    "propositional_logic": [
        lambda r, e: max(e["metadata"]["premises"], key=len),
        lambda r, e: " ∧ ".join(e["metadata"]["premises"][:2]),
    ],
    "puzzle24": ["6*4*1*1", "8*3+9/10"],
    "rubiks_cube": [lambda r, e: f"{r} U2'", lambda r, e: f"{r} 2R"],
    "rush_hour": [_bumped],
    "simple_integration": [lambda r, e: "Integral({integrand}, {variable})".format(**e["metadata"])],
    "sokoban": [lambda r, e: f"GO {r}"],
    "spell_backward": [("abcdefghix", made("abcdefghi"))],
    "survo": [lambda r, e: r.replace(" ", " x ", 1), lambda r, e: r.replace(" ", " 9.5 ", 1)],
    "time_intervals": [
        ("38 weeks", made("38 days", task_type="date")),
        ("0:00:05.5", made("0:00:05.005", task_type="time_ms")),
    ],
    "word_sorting": [lambda r, e: f"{r}, zebra"],
}
"""Wrong or unworked answers that upstream pays in full for some problem: each check must refuse them."""


@pytest.mark.parametrize(("name", "index"), [(name, i) for name, cheats in PAID.items() for i in range(len(cheats))])
def test_answers_that_upstream_overpays_are_refused(name, index):
    cheat = PAID[name][index]
    chosen = task(name, max_moves=7) if name == "rush_hour" else task(name)
    entries = [p.payload for p in ([chosen.problem(i) for i in range(8)] if name == "rush_hour" else problems(name))]
    if isinstance(cheat, tuple):
        pairs = [cheat]
    elif isinstance(cheat, str):
        pairs = [(cheat, entry) for entry in entries]
    else:
        pairs = [(cheat(right_answer(entry, name), entry), entry) for entry in entries]
    paid = [pair for pair in pairs if pair[0] != pair[1]["answer"] and score(chosen, *pair) >= 1.0]
    assert paid, "upstream has been mended: is the check still needed?"
    assert [answer for answer, entry in paid if refuse_answer(name, answer, entry) is None] == []


REFUSED_CHEATS = {
    "binary_matrix": ["[[0]]*9", "[[1 for _ in range(9)] for _ in range(9)]", "[['0'], [str(1)]]", "matrix"],
    "coin_flip": ["1e999999999", "1/1e5", "1/0", "nan", "0_1", "½", "50%"],
    "countdown": ["{}**1", "sum([{}])", "{}+0", "+".join("1" * 9), "1/0", "(", "7 7", "2e1", "3!"],
    "intermediate_integration": [
        "x.diff()",
        "Function('f')(x)",
        "'x'",
        "x**x**x",
        "sin",
        "x if 1 else 2",
        "Integral",
        "1/0",
    ],
    "n_queens": ["[['Q']]*8", "[[c for c in 'Q_']]", "Q.__class__", "__Q__ ", "[[Q]]"],
    "polynomial_multiplication": [
        "x*x",
        "(x + 1)*(x + 2)",
        "2*3*x",
        "x + x",
        "x**1000",
        "x**(1+1)",
        "x2",
        "2x",
        "x.y",
        "",
    ],
    "propositional_logic": ["¬" * 900 + "P", "P)∨(Q", "p ∨ q", "P Q", "P ∨", "(P", "∨".join("ABCDEFGHIJKL"), "X"],
    "rubiks_cube": ["R999999999", "R10", "r", "U2'", "2R", "U,R", "R " * 1500],
    "rush_hour": ["A+999999999", "A+6", "Z+1", "A1", "A+1 B+1 C+1 " * 50, "A+5 A-5"],
    "spiral_matrix": ["range(9)", "[1]*9", "1 if 1 else 2", "{1, 2}", "[1, [2]]", "1+1"],
    "string_insertion": ["'A'*9", "['AB']", "list('ABC')", "A.b", "[A]", "'ABC'"],
}


@pytest.mark.parametrize("name", REFUSED_CHEATS)
def test_cheats_are_refused(name):
    entry = problems(name)[0].payload
    assert [cheat for cheat in REFUSED_CHEATS[name] if refuse_answer(name, cheat, entry) is None] == []


@pytest.mark.parametrize("name", RUN_AS_CODE)
def test_hostile_answers_do_not_reach_a_scorer_that_would_run_or_hang(name):
    """A few are plain wrong answers in the task's own form."""
    problem = problems(name)[0]
    in_form = {"0", "-1", "C" * 900}
    passed = {text for text in hostile_answers(problem) if refuse_answer(name, text, problem.payload) is None}
    assert len(hostile_answers(problem)) > 100
    assert passed <= in_form


def most_lines(text):
    """Lines of Python that a check may run: it takes time linear in the answer. Twenty times less than this is usual."""
    return 20_000 + 20 * len(text)


@pytest.mark.parametrize("name", task_names())
def test_hostile_answers_earn_nothing_in_full_and_run_nothing(name, tmp_path):
    problem = problems(name)[0]
    for text in hostile_answers(problem, str(tmp_path / "ran")):
        refusal = refuse_answer(name, text, problem.payload)
        assert lines_run(refuse_answer, name, text, problem.payload) < most_lines(text), text[:80]
        if (
            refusal is None
            and text.strip() not in (right := str(problem.payload["answer"]))
            and f"{text}.0" not in right
        ):
            assert task(name).verify(problem, text.strip()) < 1.0, text[:80]
    assert list(tmp_path.iterdir()) == []


LETTERS = "0123456789+-*/^()[]{}'\" ,._eExXyzCsinq∧∨¬→↔×PQRABCDFLUDRwB=:%$°\\\n\t\x00\ud800é"


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(sorted(RULES)),
    st.one_of(st.text(max_size=200), st.text(alphabet=LETTERS, max_size=400)),
    st.integers(1, 9),
)
def test_no_text_makes_a_check_raise_or_dawdle(name, text, times):
    entry = problems(name)[0].payload
    reason = refuse_answer(name, text * times, entry)
    assert lines_run(refuse_answer, name, text * times, entry) < most_lines(text * times)
    assert reason is None or (reason.replace("_", "").isalpha() and reason.islower())


SEVERAL_RIGHT = {
    "boxnet",
    "countdown",
    "cryptarithm",
    "graph_color",
    "intermediate_integration",
    "jugs",
    "kakurasu",
} | {
    *("knight_swap", "n_queens", "palindrome_generation", "propositional_logic", "puzzle24", "quantum_lock"),
    *("rubiks_cube", "rush_hour", "shortest_path", "simple_integration", "sokoban", "tower_of_hanoi", "word_ladder"),
}


_NEXT = str.maketrans(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "1234567890BCDEFGHIJKLMNOPQRSTUVWXYZAbcdefghijklmnopqrstuvwxyza",
)


@pytest.mark.parametrize("name", [name for name in task_names() if name not in SEVERAL_RIGHT])
def test_a_changed_letter_or_digit_is_never_paid_in_full(name):
    """In the first characters, where it is no question of rounding; only for tasks whose answer is unique."""
    for problem in problems(name)[:8]:
        right = problem.payload["answer"].strip().replace("i" if name == "complex_arithmetic" else "\0", "j")
        for place in [place for place, char in enumerate(right) if char.isascii() and char.isalnum()][:6]:
            wrong = right[:place] + right[place].translate(_NEXT) + right[place + 1 :]
            refusal = refuse_answer(name, wrong, problem.payload)
            assert refusal is not None or task(name).verify(problem, wrong) < 1.0, (wrong, right)


@pytest.mark.parametrize("given_answer", ["", "   ", "x" * 1001, "\x00", "\ud800", "a\x1b"])
def test_limits_on_text_hold_for_every_task(given_answer):
    assert all(refuse_answer(name, given_answer, {"answer": "right"}) for name in task_names())
    assert refuse_answer("a task of the future", "right\n\tagain", {"answer": "right"}) is None


def test_the_page_on_scoring_names_every_task_with_a_check():
    page = (ROOT / "docs" / "scoring.md").read_text()
    assert [name for name in RULES if f"`{name}`" not in page] == []
