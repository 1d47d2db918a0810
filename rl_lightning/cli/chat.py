"""The command `python -m rl_lightning chat`: ask the policy a question, and show its reasoning, its answer and the score."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from rl_lightning.checkpointing.checkpoints import find_checkpoint
from rl_lightning.cli.chat_export import ExportedPolicy, is_export
from rl_lightning.cli.single_prompt import Settings, read_settings
from rl_lightning.cli.verdicts import verdict
from rl_lightning.environments.answer_formats import AnswerFormat
from rl_lightning.environments.chat_text import Turn
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.memory import StepShape, make_plan, memory_of_cards
from rl_lightning.policy import Policy
from rl_lightning.policy.placement import replica_devices
from rl_lightning.rollout import LocalEngine
from rl_lightning.rollout.self_test import self_test
from rl_lightning.types import Problem, PromptBatch, Rollout

Ask = Callable[[Problem], tuple[str, int, str]]
"""Answers a question: the text, its tokens with the end token, and how it ended, where not by itself: one of `_ENDS`."""

_ENDS = {"": "", "truncated": ", truncated at the length limit", "not finite": ", ended because logits were not finite"}

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_PROMPT_TOKENS = 1024
"""Length of a question that memory is planned for; longer ones are answered too."""


def main(args: argparse.Namespace) -> None:
    """Answer questions until there are no more.

    Args:
        args: the command line, as `cli.arguments` parses it.

    Raises:
        UserError: a mistake in the config or in the checkpoint.
    """
    if args.ckpt_path is not None and is_export(Path(args.ckpt_path).expanduser()):
        _ask_export(args)
        return
    checkpoint = None if args.ckpt_path is None else find_checkpoint(Path(args.ckpt_path).expanduser())
    settings = read_settings(args.config or checkpoint.parent / "config.yaml", "chat", checkpoint)  # type: ignore[union-attr]
    if args.max_new_tokens is not None:
        settings.sampling.max_new_tokens = args.max_new_tokens
        settings.sampling.__post_init__()
    form = settings.prompt.format
    problem = None if args.task is None else settings.problem(args.task, args.index or 0)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    # Plan for one prompt and one answer: whether there is memory for a merged copy of the weights.
    step, engine = StepShape(1, 1, _PROMPT_TOKENS, settings.sampling.max_new_tokens), LocalEngine()
    devices = replica_devices(device, settings.policy.devices_per_replica)
    plan = make_plan(settings.policy, step, "auto", 1, memory_of_cards(devices), engine)
    policy = Policy(plan.apply(settings.policy), device, layer_devices=plan.layer_devices(devices))
    template = settings.template(policy.tokenizer, args.task)
    policy.opening = template.opening
    if settings.policy.self_test:
        self_test(policy, plan.settings.merged)
    engine.start(policy, plan)
    engine.sync_weights()
    try:
        if problem is not None:
            rollout = answer(policy, engine, settings, template, problem)
            text, tokens, end = parts(rollout)
            said = "" if rollout.not_finite.any() else text  # wrong, as in the evaluation
            told = described(text, tokens, end, form)
            print(f"{problem.question.strip()}\n\n{told}\n{verdict(settings, problem, said)}")
            return
        _ask_all(args, template, form, lambda asked: parts(answer(policy, engine, settings, template, asked)))
    except KeyboardInterrupt:
        print()


def _ask_all(args: argparse.Namespace, template: PromptTemplate, form: AnswerFormat, ask: Ask) -> None:
    """Print the answer to each question; in a conversation the questions and answers before it are in its prompt."""
    history: list[Turn] = []
    for question in questions(args.lines):
        if args.conversation and history:
            template.show({"": history})
        text, tokens, end = ask(Problem(question))
        history.append((question, text))
        print(described(text, tokens, end, form), flush=True)


def _ask_export(args: argparse.Namespace) -> None:
    """The same by an export, in the program that its users have: plain transformers, or llama.cpp."""
    policy = ExportedPolicy(Path(args.ckpt_path).expanduser(), args.config, args.max_new_tokens)
    settings, form = policy.settings, policy.settings.prompt.format
    try:
        if args.task is not None:
            problem = settings.problem(args.task, args.index or 0)
            text, tokens, end = policy.answer(problem)
            print(
                f"{problem.question.strip()}\n\n{described(text, tokens, end, form)}\n{verdict(settings, problem, text)}"
            )
            return
        _ask_all(args, policy.template, form, policy.answer)
    except KeyboardInterrupt:
        print()


def questions(lines: bool = False) -> Iterator[str]:
    """Yield questions: from a terminal one per line until an empty line or its end, else all of standard input as one.

    Args:
        lines: each line of standard input is one that is not empty.
    """
    if not sys.stdin.isatty():
        asked = (line.strip() for line in sys.stdin) if lines else iter([sys.stdin.read().strip()])
        yield from (text for text in asked if text)
        return
    print("Type a question; an empty line ends.")
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return
        if not text:
            return
        yield text


def answer(
    policy: Policy, engine: LocalEngine, settings: Settings, template: PromptTemplate, problem: Problem
) -> Rollout:
    """Generate the greedy completion, as the evaluation does."""
    ids = torch.tensor([template.token_ids(problem.question, problem.task)])
    policy.refuse_longer(ids.shape[1] + settings.sampling.max_new_tokens)
    prompt = PromptBatch((problem,), ids, torch.tensor([ids.shape[1]]), cursor=0).to(policy.device)
    return engine.generate(prompt, settings.sampling, draws=None)


def parts(rollout: Rollout) -> tuple[str, int, str]:
    """Of a rollout of one completion its text, its tokens with the end token, and how it ended, where not by itself."""
    (text,), (tokens,) = rollout.texts, rollout.lengths.tolist()
    end = "not finite" if rollout.not_finite.any() else "truncated" if rollout.truncated.any() else ""
    return text, tokens, end


def described(text: str, tokens: int, end: str, form: AnswerFormat) -> str:
    """Format a completion: reasoning and answer separately, or the whole text if it is not well-formed.

    Args:
        text: the completion.
        tokens: its length, the end token included.
        end: how it ended, where not by itself: one of `_ENDS`.
        form: of answers.
    """
    think, found = _THINK.search(text), form.extract(text)
    apart = think if form.name == "tags" and form.is_well_formed(text) else None
    parts = [f"think   {apart[1].strip()}" if apart else f"text    {text.strip()}"]
    parts.append(f"answer  {found}" if found else f"answer  none in the format {form.name}")
    parts.append(f"tokens  {tokens}{_ENDS[end]}")
    return "\n".join(parts)
