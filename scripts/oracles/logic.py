"""What follows from what: by looking at every possible world."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import permutations, product

from scripts.oracles.reading import Item, Oracle, differs

World = Mapping[str, bool]
Formula = Callable[[World], bool]


def syllogism(item: Item) -> str | None:
    """A world says which of the eight kinds of things, in or out of three classes, exist. An answer is right if it is so where no
    class is empty, as tradition has it."""
    one, two, asked = re.search(r"1\. (.*)\n2\. (.*)\n\n.*follow that:\n(.*)\?", item["question"]).groups()  # type: ignore[union-attr]
    names = sorted({name for text in (one, two) for name in _classes(text)})
    kinds = list(product([False, True], repeat=len(names)))
    follows = True
    for exists in product([False, True], repeat=len(kinds)):
        things = [dict(zip(names, kind, strict=True)) for kind, there in zip(kinds, exists, strict=True) if there]
        if all(any(thing[name] for thing in things) for name in names) and _holds(one, things) and _holds(two, things):
            follows = follows and _holds(asked, things)
    return differs(item, "Yes" if follows else "No")


def _classes(statement: str) -> list[str]:
    return re.sub(r"^(?:All|No|Some) | not(?= )", "", statement).split(" are ")


def _holds(statement: str, things: list[dict[str, bool]]) -> bool:
    a, b = _classes(statement)
    both = any(thing[a] and thing[b] for thing in things)
    one = any(thing[a] and not thing[b] for thing in things)
    if statement.startswith("Some"):
        return one if " are not " in statement else both
    return not one if statement.startswith("All") else not both


def propositional_logic(item: Item) -> str | None:
    """The example answer follows, and not from a contradiction."""
    premises = [parse(text) for text in re.findall(r"^\.?\d+\. (.*)$", item["question"], re.MULTILINE)]
    example = item["metadata"]["example_answer"]
    names = sorted(set(re.findall(r"[A-Z]", "".join([*item["metadata"]["premises"], example]))))
    worlds = [dict(zip(names, values, strict=True)) for values in product([False, True], repeat=len(names))]
    true = [world for world in worlds if all(premise(world) for premise in premises)]
    if not true:
        return "the premises contradict each other, so anything follows"
    if len(true) == len(worlds):
        return "the premises say nothing, so nothing follows"
    return None if all(parse(example)(world) for world in true) else "the example does not follow"


_OPERATORS: dict[str, Callable[[bool, bool], bool]] = {
    "∧": lambda a, b: a and b,
    "∨": lambda a, b: a or b,
    "→": lambda a, b: not a or b,
    "↔": lambda a, b: a == b,
}


def parse(text: str) -> Formula:
    """A formula with parentheses around every pair."""
    tokens = re.findall(r"[A-Z]|[()¬∧∨→↔]", text)

    def take() -> Formula:
        token = tokens.pop(0)
        if token == "¬":
            inner = take()
            return lambda world: not inner(world)
        if token != "(":
            return lambda world: world[token]
        left, sign, right = take(), tokens.pop(0), take()
        assert tokens.pop(0) == ")"
        return lambda world: _OPERATORS[sign](left(world), right(world))

    if text.startswith("(") or len(tokens) <= 2 or text.startswith("¬"):
        return take()
    tokens[:] = ["(", *tokens, ")"]
    return take()


def self_reference(item: Item) -> str | None:
    a, b, c, d = (
        int(re.search(rf"(?:At least|At most|Exactly) (\d+) of .*", line)[1])
        for line in item["question"].splitlines()[1:5]
    )  # type: ignore[index]  # noqa: F541, E501
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
    shown, asked = re.search(
        r"experimental results:\n(.*?)\n\nNew test case:\n(.*?)\n", item["question"], re.DOTALL
    ).groups()  # type: ignore[union-attr]
    seen = [(set(objects.split(", ")), light) for objects, light in (line.split(" → ") for line in shown.splitlines())]
    never = set().union(*(objects for objects, light in seen if light == "off"))
    test = set(asked.split(", ")) - never
    if any(not objects - never for objects, light in seen if light == "on"):
        return "the results contradict each other"
    sure = any(objects - never <= test for objects, light in seen if light == "on")
    return differs(item, "on" if sure else "off" if not test else "undetermined")


def zebra_puzzles(item: Item) -> str | None:
    """The houses in every order, one kind of thing after the other."""
    from reasoning_gym.logic.contrib.logic_puzzle import literals

    head, clues = item["question"].split("\n\n", 1)
    kinds = [line.rsplit(": ", 1)[1].split(", ") for line in head.splitlines() if line.startswith(" - ")]
    count = len(kinds[0])
    titles = [line.rsplit(": ", 1)[0][3:] for line in head.splitlines() if line.startswith(" - ")]
    words: dict[str, tuple[int, str]] = {}
    for kind in vars(literals).values():
        if isinstance(kind, type) and issubclass(kind, literals.Literal) and kind is not literals.Literal:
            for place, title in enumerate(titles):
                if kind.description().startswith(title + ":"):
                    words |= {each.value.casefold().strip(): (place, each.name.replace("_", " ")) for each in kind}
    tests = [_clue(text, words) for text in re.findall(r"^\d+\. (.*)\.$", clues, re.MULTILINE)]
    worlds: list[dict[tuple[int, str], int]] = [{}]
    for place, values in enumerate(kinds):
        orders = [
            dict(zip([(place, v) for v in values], order, strict=True)) for order in permutations(range(1, count + 1))
        ]
        worlds = _extended(worlds, orders, [test for needs, test in tests if needs == place])
    names = {name for world in worlds for (place, name), house in world.items() if place == 0 and house == 1}
    return differs(item, " or ".join(sorted(names)))


_World = dict[tuple[int, str], int]


def _extended(worlds: list[_World], orders: list[_World], tests: list[Callable[[_World], bool]]) -> list[_World]:
    both = ({**world, **order} for world in worlds for order in orders)
    return [world for world in both if all(test(world) for test in tests)]


_NUMBERS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"]
_RELATIONS: list[tuple[str, Callable[[int, int], bool]]] = [
    (r"There is one house between (.+) and (.+)", lambda a, b: abs(a - b) == 2),
    (r"There are two houses between (.+) and (.+)", lambda a, b: abs(a - b) == 3),
    (r"(.+) and (.+) are next to each other", lambda a, b: abs(a - b) == 1),
    (r"(.+) is directly left of (.+)", lambda a, b: a == b - 1),
    (r"(.+) is somewhere to the left of (.+)", lambda a, b: a < b),
    (r"(.+) is somewhere to the right of (.+)", lambda a, b: a > b),
    (r"(.+) is (.+)", lambda a, b: a == b),
]


def _clue(text: str, words: dict[str, tuple[int, str]]) -> tuple[int, Callable[[_World], bool]]:
    """The last kind of thing that a clue speaks of, and whether it holds."""
    if found := re.fullmatch(r"(.+?) is (not )?in the (\w+) house", text):
        thing, house = words[found[1].casefold().strip()], _NUMBERS.index(found[3]) + 1
        return thing[0], lambda world: (world[thing] == house) != bool(found[2])
    for pattern, test in _RELATIONS:
        if match := re.fullmatch(pattern, text):
            pairs = [(match[1], match[2])]
            pairs += (
                [(text[: m.start()], text[m.end() :]) for m in re.finditer(" is ", text)]
                if pattern == r"(.+) is (.+)"
                else []
            )
            for left, right in pairs:
                a, b = words.get(left.casefold().strip()), words.get(right.casefold().strip())
                if a and b:
                    return max(a[0], b[0]), lambda world, a=a, b=b, test=test: test(world[a], world[b])  # type: ignore[misc]
    raise ValueError(text)


ORACLES: dict[str, Oracle] = {
    "acre": acre,
    "circuit_logic": circuit_logic,
    "propositional_logic": propositional_logic,
    "self_reference": self_reference,
    "syllogism": syllogism,
    "zebra_puzzles": zebra_puzzles,
}
