"""What follows from what: by looking at every possible world."""

from __future__ import annotations

import re
from itertools import product

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs, groups


def self_reference(item: Item) -> str | None:
    a, b, c, d = (
        int(groups(r"(?:At least|At most|Exactly) (\d+) of", line)[0]) for line in item["question"].splitlines()[1:5]
    )
    count = 0
    for s in product([False, True], repeat=7):
        true = sum(s)
        said = (
            true >= a,
            7 - true <= b,
            true == c,
            7 - true == d,
            s[2] != s[3],
            true in (2, 3, 5, 7),
            7 - true in (4, 6),
        )
        count += s == said
    return differs(item, count)


def circuit_logic(item: Item) -> str | None:
    values = {name: bool(int(bit)) for name, bit in re.findall(r"^  (\w+) = ([01])$", item["question"], re.MULTILINE)}

    def gate(sign: str, inputs: list[bool]) -> bool:
        return {
            "&": all(inputs),
            "↑": not all(inputs),
            "⊕": sum(inputs) % 2 == 1,
            "+": any(inputs),
            "↓": not any(inputs),
        }[sign]

    terms = []
    for term in item["metadata"]["term_strings"]:
        sign = next((sign for sign in "&↑⊕" if sign in term), "&")
        terms.append(gate(sign, [values[name.rstrip("'")] != name.endswith("'") for name in term.split(sign)]))
    final = {"AND": "&", "OR": "+", "NOR": "↓", "XOR": "⊕"}[item["metadata"]["final_gate"]]
    return differs(item, int(gate(final, terms)))


def acre(item: Item) -> str | None:
    """An object turns the light on, or it does not; the light is on if one of them does."""
    shown, asked = groups(r"experimental results:\n(.*?)\n\nNew test case:\n(.*?)\n", item["question"], re.DOTALL)
    seen = [(set(objects.split(", ")), light) for objects, light in (line.split(" → ") for line in shown.splitlines())]
    never = set().union(*(objects for objects, light in seen if light == "off"))
    test = set(asked.split(", ")) - never
    if any(not objects - never for objects, light in seen if light == "on"):
        return "the results contradict each other"
    sure = any(objects - never <= test for objects, light in seen if light == "on")
    return differs(item, "on" if sure else "off" if not test else "undetermined")


ORACLES: dict[str, Oracle] = {
    "acre": acre,
    "circuit_logic": circuit_logic,
    "self_reference": self_reference,
}
