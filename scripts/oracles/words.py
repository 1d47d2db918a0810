"""Letters, words and their order."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, between, differs, groups


def letter_counting(item: Item) -> str | None:
    letter, text = groups(r'letter "(.)" appear in the text: "(.*)"', item["question"], re.DOTALL)
    return differs(item, Counter(text.lower())[letter.lower()])


def letter_jumble(item: Item) -> str | None:
    """Each word has the letters of the scrambled one."""
    scrambled = between(item["question"], "unscramble these words: ").split()
    right = item["answer"].split()
    same = [sorted(a.lower()) == sorted(b.lower()) for a, b in zip(scrambled, right, strict=False)]
    return None if len(scrambled) == len(right) and all(same) else "not the same letters"


def sentence_reordering(item: Item) -> str | None:
    given = between(item["question"], "following sentence: ").split()
    return None if Counter(given) == Counter(item["answer"].split()) else "not the same words"


def spell_backward(item: Item) -> str | None:
    word = between(item["question"], "): ")
    return differs(item, "".join(reversed(word)))


def word_sequence_reversal(item: Item) -> str | None:
    listed = between(item["question"], "list of words: ").split(", ")
    return differs(item, ", ".join(reversed(listed)))


def word_sorting(item: Item) -> str | None:
    order, listed = groups(r"words in (\w+) order .*list: (.*)", item["question"])
    right = sorted(listed.split(", "), key=lambda word: [ord(c) for c in word], reverse=order == "descending")
    return differs(item, ", ".join(right))


def group_anagrams(item: Item) -> str | None:
    words = json.loads(between(item["question"], "into anagrams:"))
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault("".join(sorted(word)), []).append(word)
    right = sorted(sorted(group) for group in groups.values())
    return None if sorted(sorted(g) for g in json.loads(item["answer"])) == right else f"it is {right}"


def isomorphic_strings(item: Item) -> str | None:
    one, two = between(item["question"], "or False otherwise:").split()
    return differs(item, [one.index(c) for c in one] == [two.index(c) for c in two])


def ransom_note(item: Item) -> str | None:
    note, magazine = between(item["question"], "Ransom note: ").split("Magazine: ")
    return differs(item, not Counter(note.strip()) - Counter(magazine.strip()))


def palindrome_generation(item: Item) -> str | None:
    letters = between(item["question"], "following letters: ").split(", ")
    answer = item["answer"]
    return None if sorted(letters) == sorted(answer) and answer == answer[::-1] else "no palindrome of the letters"


def palindrome_partitioning(item: Item) -> str | None:
    text = between(item["question"], "into palindromes: ")

    def parts(rest: str) -> list[list[str]]:
        if not rest:
            return [[]]
        cuts = [k for k in range(1, len(rest) + 1) if rest[:k] == rest[:k][::-1]]
        return [[rest[:k], *tail] for k in cuts for tail in parts(rest[k:])]

    return None if sorted(parts(text)) == sorted(json.loads(item["answer"])) else "not all partitions"


def binary_alternation(item: Item) -> str | None:
    """Each swap mends one misplaced 1 and one misplaced 0."""
    bits = between(item["question"], "string alternating: ")
    swaps = []
    for first in "01":
        wanted = [first if k % 2 == 0 else "10"[int(first)] for k in range(len(bits))]
        wrong = [bit for bit, right in zip(bits, wanted, strict=True) if bit != right]
        if wrong.count("0") == wrong.count("1"):
            swaps.append(len(wrong) // 2)
    return differs(item, min(swaps, default=-1))


def word_ladder(item: Item) -> str | None:
    """From one word to the other, one letter at a time."""
    first, last = groups(r"ladder '(\w+)' to '(\w+)'", item["question"])
    words = item["answer"].split(",")
    changed = [sum(a != b for a, b in zip(one, two, strict=True)) for one, two in pairwise(words)]
    return None if [words[0], words[-1]] == [first, last] and set(changed) == {1} else "not one letter at a time"


ORACLES: dict[str, Oracle] = {
    "binary_alternation": binary_alternation,
    "group_anagrams": group_anagrams,
    "isomorphic_strings": isomorphic_strings,
    "letter_counting": letter_counting,
    "letter_jumble": letter_jumble,
    "palindrome_generation": palindrome_generation,
    "palindrome_partitioning": palindrome_partitioning,
    "ransom_note": ransom_note,
    "sentence_reordering": sentence_reordering,
    "spell_backward": spell_backward,
    "word_ladder": word_ladder,
    "word_sequence_reversal": word_sequence_reversal,
    "word_sorting": word_sorting,
}
