"""Problems whose answer by reasoning-gym is wrong are not asked; the right answers below are worked out by hand."""

from __future__ import annotations

import pytest

from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.levels import PROBLEMS_TRIED, LevelTrial
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.reasoning_gym.catalogue import describe
from rl_lightning.environments.reasoning_gym.problem_checks import PROBLEM_RULES, refuse_problem
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask, config_defaults
from rl_lightning.environments.stream import PromptStream, eval_problems


def item(question, answer, **metadata):
    return {"question": question, "answer": answer, "metadata": metadata}


def syllogism(one, two, asked, answer):
    question = f"Consider these statements:\n1. {one}\n2. {two}\n\nDoes it logically follow that:\n{asked}?\n(Answer Yes or No)"
    return item(question, answer)


def premises(*formulas):
    listed = "\n.".join(f"{number}. {formula}" for number, formula in enumerate(formulas, 1))
    return item(f"Given:\n{listed}\n.What can we conclude?", None, premises=list(formulas))


def colleagues(women, others):
    return (
        f"Mary has 2 male colleagues and she also has {women} female colleagues. These are all colleagues that Mary has. John has "
        f"1 male colleagues and {others} female colleagues in total. How many female colleagues does Matilda have?"
    )


def family(asked):
    return f"Kai is married to Sophie. They have a child called Atlas. Atlas is married to Anna.\n\n{asked}"


def cards(hand, *moves):
    rounds = [
        f"Round {k}: Add a {added} card and remove a {removed} card." for k, (added, removed) in enumerate(moves, 1)
    ]
    return f"Now, given the initial cards {hand}, what is the result:\n" + "\n".join(rounds)


def board(*rows):
    lines = "\n".join(f"{len(rows) - k} {row}\n   -----" for k, row in enumerate(rows))
    return f"Challenge:\n\n```\n    A   B   C\n   -----\n{lines}\n```\n\n3. w moves first, then players alternate"


def stones(*rows, ask="capture some of the white stones?"):
    lines = [f"{len(rows) - k:2} {' '.join(row)}" for k, row in enumerate(rows)]
    return f"Go: {ask}\n\n```\n   {' '.join('ABCDE')}\n" + "\n".join(lines) + "\n```\n\nX - Black"


def lock(target, *buttons):
    listed = "\n".join(f"{name}: {text}" for name, text in zip("ABC", buttons, strict=True))
    return f"Start: 0 (red)\nTarget: {target}\nButtons:\n{listed}"


def survo(*rows, free):
    return "The matrix is:\n" + "\n".join(rows) + f"\nUse the numbers {free}. Each number can only be used once."


def program(code, inputs, outputs):
    return item(f"… not copy spans of code directly.\n\n{code}", "", input_data=inputs, output_data=outputs)


def interval(what, form):
    return f"What is the duration {what}? Please answer in {form}."


ZONED = "2024-01-15 (Monday) 14:30:45 +0200", "2024-01-16 (Tuesday) 14:00:45 +0100"
SPOKEN = "Monday, January 15, 2024 at 14"
OVERSTATED = "In Dr. Lee's class 39% of the remaining 60 are dancers so that's 0.39*60 = 23 students\n#### 63"
EXACT = "First, 13/52 = 1/4. 144 total - 45 play - 8 run - 16 dance = 75. She pays $340,000 x 3 = $1,020,000\n#### 75"
ADD = "def main_solution(a):\n    a.append(1)\n    return len(a)"
DRAW = "import random\ndef main_solution(a):\n    return random.random()"
CASES = {
    "aiw": [
        (item("Mary has 2 sisters and she also has 1 brothers. How many sisters does John's brother have?", "3"), True),
        (
            item("Mary has 2 brothers and she also has 1 sisters. How many sisters does Mary's brother have?", "2"),
            False,
        ),
        (item(colleagues(women=3, others=4), "4"), True),  # Mary, two more of her circle, three more of John's
        (item(colleagues(women=3, others=4), "6"), False),
    ],
    "basic_arithmetic": [
        (item("", "2", expression="( 7 ) / 3"), True),
        (item("", "-7", expression="-( 8 / 2 * 3 ) + 5"), False),
    ],
    "caesar_cipher": [(item("", "AËRIAL"), True), (item("", "AERIAL"), False)],
    "calendar_arithmetic": [
        (item("from Friday, December 30 to Monday, January 2, 2022?", "2", end_date="2023-01-02"), True),
        (item("from Friday, January 7 to Monday, January 10, 2022?", "2", end_date="2022-01-10"), False),
        (item("Is 2024 a leap year?", "Yes"), False),
    ],
    "codeio": [
        (program(ADD, {"a": [1, 1]}, 2), True),  # a list that the program has changed
        (program(DRAW, {"a": []}, 0.5), True),
        (program("", {}, {}), True),
        (program("def main_solution(a):\n    raise ValueError", {"a": 1}, 1), True),
        (program(ADD, {"a": [1]}, 2), False),
    ],
    "decimal_arithmetic": [
        (item("a maximum of 3 significant digits\n(1.000/3.000-0.333) = ?", "0.000"), True),  # 0.000333…
        (item("a maximum of 3 significant digits\n(2.000/3.000) = ?", "0.666"), False),  # one unit
        (item("a maximum of 3 significant digits\n(2.000/3.000) = ?", "0.664"), True),
    ],
    "emoji_mystery": [(item("", "Hi", emoji="☺️"), True), (item("", "Hi", emoji="😩"), False)],
    "family_relationships": [
        (item(family("What is Anna to Kai? Respond"), "father-in-law"), True),
        (item(family("What is Kai to Anna? Respond"), "father-in-law"), False),
        (item(family("How is Anna related to Sophie? Provide"), "daughter-in-law"), False),
        (item(family("What relation is Atlas to Kai? Answer"), "daughter"), True),
    ],
    "figlet_font": [(item("", "CUNEAL", font="test1"), True), (item("", "CUNEAL", font="standard"), False)],
    "gsm_symbolic": [
        (item("", "63", answer_cot=OVERSTATED), True),
        (item("", "-3", answer_cot="5 - 8 = -3"), True),
        (item("", "75", answer_cot=EXACT), False),
    ],
    "knight_swap": [
        (
            item(board("| B |   | w |", "|   |   |   |", "|   | . |   |"), "No"),
            False,
        ),  # only B1 can be reached
        (item(board("| B |   | w |", "|   |   |   |", "| . | . | . |"), "No"), False),
        (item(board("| B |   |   |", "|   |   | w |", "| . | . |   |", "|   |   |   |"), "No"), False),
        (item(board("| B | . | . |", "| . |   | . |", "| . | . | w |"), "No"), True),  # around the middle
        (item(board("| B | . | . |", "| . |   | . |", "| . | . | w |"), "['w,C1,B3']"), False),
    ],
    "mahjong_puzzle": [
        (item(cards("ABDEFGHIJKLMN", "CA"), "Pass"), True),  # B, C and D are a run
        (item(cards("ABDEFGHIJKLMN", "ZA"), "Pass"), False),
        (item(cards("AABCEGIKMOQSU", "AB"), "Chi"), True),  # a third A takes precedence over A, B and C
        (item(cards("AABCEGIKMOQSU", "AB"), "Peng"), False),
        (item(cards("ABBCEGIKMOQSU", "ZB", "BZ"), "Peng"), True),  # a B was removed: Chi
    ],
    "needle_haystack": [
        (item("Ann likes tea. Bob likes tea. \nWho likes tea? Reply only with a name.", "Bob"), True),
        (item("Ann dislikes tea. Bob likes tea. \nWho likes tea? Reply only with a name.", "Bob"), False),
    ],
    "number_filtering": [
        (item("Keep all numbers larger than 48.3 in this list: ['64.00', '64', '24']\n", "['64.00', '64.00']"), True),
        (item("Keep all numbers larger than 48.3 in this list: ['64.00', '64', '24']\n", "['64.00', '64']"), False),
        (item("Remove all numbers smaller than 7 in this list: ['-2.6', '7', '29.0']\n", "['7', '29.0']"), False),
    ],
    "power_function": [
        (item("Compute -3.5^2. Return", "12.25"), True),
        (item("Compute -3.5^-3. Return", "-0.0233"), False),
        (item("Compute 3.5^2. Return", "12.25"), False),
    ],
    "propositional_logic": [
        (premises("P", "¬P"), True),
        (premises("(R → R)", "¬(P ∧ ¬P)"), True),
        (premises("(¬P ↔ (P → Q))", "¬R"), False),
    ],
    "quantum_lock": [
        (item(lock(4, "Multiply 2 (when green)", "Add 2 (when red)", "Add 1 (when any)"), "B → A"), False),
        (item(lock(5, "Add 1 (when any)", "Add 4 (when green)", "Subtract 1 (when red)"), "A → A → A → A → A"), True),
        (
            item(lock(4, "Add 1 (when red)", "Add 4 (when green)", "Subtract 1 (when any)"), "C → A → B"),
            True,
        ),  # B, then B
    ],
    "string_manipulation": [
        (
            item("", "aa", states=["bcacb", "cb", "aa"], selected_rules=["prefix 'cb' … delete the last character."]),
            True,
        ),
        (item("", "cb", states=["bcacb", "cb"], selected_rules=["prefix 'cb' … delete the last character."]), False),
    ],
    "survo": [
        (item(survo("0 0 3", "0 0 3", "3 3 6", free="[1, 2, 2, 1]"), "1 2 3\n2 1 3\n3 3 6"), True),
        (item(survo("0 0 3", "1 4 5", "2 6 8", free="[1, 2]"), "1 2 3\n1 4 5\n2 6 8"), False),
    ],
    "syllogism": [
        (syllogism("All ants are dogs", "Some dogs are cats", "Some ants are cats", "Yes"), True),
        (syllogism("All ants are dogs", "Some dogs are not cats", "Some ants are not cats", "Yes"), True),
        (syllogism("All ants are dogs", "All dogs are cats", "Some ants are cats", "Yes"), False),  # there are ants
        (syllogism("No ants are dogs", "Some dogs are cats", "No dogs are ants", "Yes"), False),
    ],
    "time_intervals": [
        (item(interval("between 09:00:00.001 and 09:00:01.421", "HH:MM:SS.mmm"), "00:00:01.419"), True),
        (item(interval("between 09:00:00.001 and 09:00:01.421", "HH:MM:SS.mmm"), "00:00:01.420"), False),
        (item(interval("between 09:00 and 10:30", "HH:MM"), "01:30"), False),
        (item(interval("between 23:00 and 00:00", "HH:MM"), "-23:00"), True),
        (item(interval("between 12/30/2843 and 01/02/2844", "D days"), "3 days"), False),
        (item(interval(f"between {ZONED[0]} and {ZONED[1]}", "D days, HH:MM"), "1 days, 00:00"), True),
        (item(interval(f"between {ZONED[0]} and {ZONED[1]}", "D days, HH:MM"), "1 days, 00:30"), False),
        (item(interval(f"between {SPOKEN}:30 and {SPOKEN}:45", "D days, HH:MM:SS"), "0 days, 00:15:00"), False),
    ],
    "tsumego": [
        (item(stones(".....", ".X...", "XO...", ".X...", "....."), "C3"), False),
        (item(stones(".....", ".X...", "XO.O.", ".X...", "....."), "C3"), False),
        (item(stones(".....", ".X...", "XOO..", ".X...", "....."), "C3"), True),  # the group has D3, C4 and C2
        (item(stones(".X...", "XO...", ".X.X.", "..XO.", "...X."), "C4"), True),  # E2 captures too
        (item(stones(".X...", "XO...", ".X.X.", "..XO.", "...X.", ask="as many"), "E2"), True),
        (item(stones(".XX..", "XOO..", ".XXX.", "..XO.", "...X.", ask="as many"), "E2"), True),  # D4 captures two
        (item(stones(".XX..", "XOO..", ".XXX.", "..XO.", "...X.", ask="as many"), "D4"), False),
    ],
}


def test_each_rule_has_a_case_of_each_kind():
    assert CASES.keys() == PROBLEM_RULES.keys()
    assert all({wrong for _, wrong in cases} == {True, False} for cases in CASES.values())


@pytest.mark.parametrize("name", CASES)
def test_wrong_answers_are_known_from_right_ones(name):
    for number, (entry, wrong) in enumerate(CASES[name]):
        assert (refuse_problem(name, entry) is not None) == wrong, (number, refuse_problem(name, entry))


def test_tasks_without_a_rule_are_asked_as_they_are():
    assert refuse_problem("chain_sum", item("1 + 1 =", "3")) is None


def test_a_question_in_an_unknown_form_is_not_silently_kept():
    with pytest.raises(ValueError, match="not understood"):
        refuse_problem("power_function", item("Raise 2 to the power of 3.", "8"))


def test_a_wrong_problem_is_no_problem_and_says_why():
    task = ReasoningGymTask("mahjong_puzzle")
    wrong = next(seed for seed in range(100) if refuse_problem("mahjong_puzzle", task.item(seed)))
    with pytest.raises(GenerationFailed, match=r"reasoning-gym's answer '(Pass|Chi|Peng)': it is (Chi|Peng)") as error:
        task.problem(wrong)
    assert error.value.reason == "wrong_answer"


class Short:
    """A template that takes a character for a token."""

    def token_ids(self, question, task):
        return tuple(map(ord, question[:9]))


def test_the_stream_puts_the_slots_next_candidate_in_place_of_a_wrong_problem_and_counts_it():
    mixture = EnvironmentMixture({"aiw": TaskSpec()})
    stream, again = (PromptStream(mixture, Short(), seed=3) for _ in range(2))
    prompts = [stream[slot] for slot in range(40)]
    assert prompts == [again[slot] for slot in range(40)]
    counts = [prompt.skipped["wrong_answer"] for prompt in prompts]
    assert 10 < sum(counts) < 70  # about 8 of 10, as 44% of the candidates are wrong
    for slot, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
        task, seed, _, _ = stream.candidate(slot, count)
        assert prompt.problem.question == mixture.tasks[task].item(seed)["question"]


def test_the_evaluation_has_no_wrong_problem():
    mixture = EnvironmentMixture({"aiw": TaskSpec(), "tsumego": TaskSpec()})
    problems = eval_problems(mixture, seed=1, per_task=20)
    assert [p.task for p in problems] == ["aiw"] * 20 + ["tsumego"] * 20
    assert all(refuse_problem(p.task, p.payload) is None for p in problems)


def test_a_composite_has_the_rules_of_its_parts():
    task = ReasoningGymTask("composite", {"datasets": [{"name": "aiw"}]})
    kept, wrong = 0, 0
    for seed in range(40):
        try:
            kept += refuse_problem("aiw", task.problem(seed).payload) is None
        except GenerationFailed as error:
            wrong += error.reason == "wrong_answer"
    assert kept + wrong == 40
    assert wrong > 5


def test_levels_with_many_wrong_problems_stay_usable():
    task = ReasoningGymTask("aiw")
    problems = LevelTrial({"aiw": task}).draw("aiw", {**config_defaults("aiw"), "max_entities": 12})
    assert len(problems) == PROBLEMS_TRIED
    assert sum(refuse_problem("aiw", task.item(seed)) is not None for seed in range(PROBLEMS_TRIED)) > 2


def test_the_description_of_a_task_says_that_problems_are_left_out():
    assert "Left out are problems" in describe("tsumego")
    assert "Left out are problems" not in describe("chain_sum")


def test_a_program_of_codeio_is_the_same_each_time_that_it_is_drawn():
    task = ReasoningGymTask("codeio")
    drawn = [seed for seed in range(60) if "random" in task.item(seed)["question"]][:6]
    assert [task.item(seed)["answer"] for seed in drawn] == [task.item(seed)["answer"] for seed in drawn]
