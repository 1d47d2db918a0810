"""Build the tiny policy's tokenizer: the prompts' frequent words are one token each, everything else is letters and digits."""

from __future__ import annotations

import string
from collections import Counter
from itertools import pairwise
from typing import Any

from tokenizers import AddedToken, Regex
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

END, PAD = "<|im_end|>", "<|endoftext|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(questions: list[tuple[str, str]]) -> Qwen2Tokenizer:
    """A byte-level BPE in Qwen2's own form, in which the prompts' frequent words are one token and other words are letters.

    A word's first letter carries its space. Beyond that each word's merges begin at its rarest pair of letters and grow
    outward, so the pieces on the way hardly ever occur in the words that are to be spelled letter by letter.

    Args:
        questions: (task, question) samples.
    """
    pre = Sequence(
        [Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    words: Counter[str] = Counter()
    spelled: Counter[tuple[str, str]] = Counter()
    for task, question in questions:
        text, _, word = question.rpartition(" ") if task == "spell_backward" else (question, "", "")
        words.update(w for w, _ in pre.pre_tokenize_str(text) if not w.isdigit())
        if word:
            spelled.update(_pairs([f"Ġ{word[0]}", *word[1:]]))
    vocab = {char: i for i, char in enumerate(sorted(ByteLevel.alphabet()))}
    merges = [("Ġ", letter) for letter in string.ascii_letters]
    vocab |= {"".join(pair): len(vocab) + i for i, pair in enumerate(merges)}
    limit = 0.002 * sum(spelled.values())
    for word in sorted(w for w, n in words.items() if n >= len(questions) / 2000 and len(w) > 1):
        pieces = _apply(list(word), merges)
        while len(pieces) > 1:
            pair = min(_pairs(pieces), key=lambda p: (spelled[p], p))
            if spelled[pair] > limit:
                break
            merges.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
            pieces = _merge(pieces, pair)
    for token in (PAD, END, *ROLES, *TAGS):
        vocab[token] = len(vocab)
    written: Any = merges  # annotated as strings upstream, and taken as pairs
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=written, eos_token=END, pad_token=PAD, unk_token=PAD)
    tokenizer.add_special_tokens({"additional_special_tokens": list(ROLES)})
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _pairs(pieces: list[str]) -> list[tuple[str, str]]:
    return list(pairwise(pieces))


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _apply(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    for pair in merges:
        pieces = _merge(pieces, pair)
    return pieces
