"""The data module: an endless stream of prompts that can be resumed at any step, and a fixed evaluation set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from rl_lightning.checkpointing.recorded import Recorded
from rl_lightning.curriculum import Curriculum, CurriculumScheduler, SuccessRecord
from rl_lightning.distributed import Collective, SingleProcess
from rl_lightning.environments.batches import collate
from rl_lightning.environments.chat_text import Turn
from rl_lightning.environments.examples import shown_hashes, worked_examples
from rl_lightning.environments.held_out import epoch_orders, few_problems, held_out_share, small_tasks
from rl_lightning.environments.levels import MAX_SECONDS, REFUSED, check_levels, left_out, usable
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.own_environments import try_own
from rl_lightning.environments.problem_workers import ProblemWorkers, prompts_at, prompts_from
from rl_lightning.environments.prompts import ExamplesFor, PromptSettings, WorkedExample
from rl_lightning.environments.stream import EXTRA_SLOTS, Prompt, PromptStream, eval_problems, held_out_hashes
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.types import Problem, PromptBatch, UserError, require

log = logging.getLogger(__name__)

_STEPS_AHEAD = 3
"""Problems are generated this many steps ahead."""

_LAG_STEPS = _STEPS_AHEAD + 1
"""A change of level takes effect this many steps later: when a step ends, Lightning has already fetched the next batch, and
generation of the problems of the steps after that has started."""


class PromptDataModule(Recorded, LightningDataModule):
    """Streams reasoning-gym problems as prompts.

    Args:
        datasets: task name to its weight and configuration, or your own environment; `python -m rl_lightning tasks` lists names.
        prompts_per_step: B, prompts of a rollout, each with `num_generations` completions; at least 1.
        system_prompt: the system message before every question; null: one that asks for the answer's format; empty for none.
        chat_template_kwargs: variables of the model's chat template, such as {enable_thinking: false}.
        max_prompt_tokens: length limit of a prompt, tokens; problems with a longer prompt are skipped and counted; at least 1.
        num_workers: processes that generate problems ahead of the trainer; 0: in the trainer's process, without a time limit.
        problem_seconds: time limit of generating a problem in a worker, seconds; slower ones are skipped and counted; above 0.
        eval_num_samples: evaluation problems per task; their questions never appear in training; at least 1.
        eval_seed: selects the evaluation set.
        seed: selects the training stream.
        curriculum: difficulty levels that follow the policy's accuracy; null: every task keeps its own config.
        answer_format: of completions: tags, boxed, last_line, last_number, or a regular expression with a group (?P<answer>…).
        examples: worked examples before every question, drawn from its task; 0 or more.
        own_examples: by task, worked examples of your own, each with question, answer and thinking; they come first.
        prefill: how the answer begins, such as "<think>\\n"; it is part of the prompt.
        prompt_template: text with {question} in it, for base models, in place of the chat template.
        examples_for: which prompts show the examples: all (all_steps), or only those that `model.sft_steps` are sampled with.

    Raises:
        UserError: a value out of range, or a task or configuration that cannot be used; in `setup`, no problems left to train on,
            or a curriculum that starts at a level that does not exist.
    """

    def __init__(
        self,
        datasets: dict[str, TaskSpec],
        prompts_per_step: int = 8,
        system_prompt: str | None = None,
        max_prompt_tokens: int = 512,
        num_workers: int = 1,
        problem_seconds: float = 60.0,
        eval_num_samples: int = 50,
        eval_seed: int = 0,
        seed: int = 0,
        curriculum: Curriculum | None = None,
        chat_template_kwargs: dict[str, Any] = {},  # noqa: B006
        answer_format: str = "tags",
        examples: int = 0,
        own_examples: dict[str, list[WorkedExample]] = {},  # noqa: B006
        prefill: str = "",
        prompt_template: str = "",
        examples_for: ExamplesFor = "all_steps",
    ) -> None:
        super().__init__()
        of = system_prompt, answer_format, examples, own_examples, prefill, prompt_template, chat_template_kwargs
        self.prompt = PromptSettings(*of, examples_for)
        self.answer_format = self.prompt.format
        self.prompts_per_step, self.max_prompt_tokens = prompts_per_step, max_prompt_tokens
        self.eval_num_samples, self.eval_seed, self.seed = eval_num_samples, eval_seed, seed
        self.num_workers, self.problem_seconds, self.curriculum = num_workers, problem_seconds, curriculum
        minima = {"prompts_per_step": 1, "max_prompt_tokens": 1, "num_workers": 0, "eval_num_samples": 1}
        for name, least in minima.items():
            require(f"data.{name}", getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        require("data.problem_seconds", problem_seconds, problem_seconds > 0, "above 0")
        if curriculum is not None:
            curriculum.check()
        self.mixture = EnvironmentMixture(datasets)
        self.make = ProblemWorkers(self.mixture, num_workers, problem_seconds) if num_workers else self.mixture.problem
        self.eval_problems: tuple[Problem, ...] = ()
        self._held_out: frozenset[bytes] = frozenset()
        self._candidates: dict[str, list[dict[str, Any]]] = {}
        self.record = SuccessRecord()
        """Accuracy by task and level, with or without a curriculum."""
        self.scheduler: CurriculumScheduler | None = None
        """Moves each task's level; from `setup` on, None without a curriculum."""
        self.examples: dict[str, list[Turn]] = {}
        """Worked examples, by task; from `setup` on."""
        self.opening = ""  # of the assistant's turn, what the prompts have already opened; from `setup` on
        self.collective: Collective = SingleProcess()
        """The ranks that train together, read from the module in `setup`."""
        self.cursor = 0
        """Prompts of the stream used so far; `advance` moves it, and checkpoints contain it."""
        self.extra_cursor = 0
        """Extra prompts used so far; `extra_prompts` moves it, and checkpoints contain it."""

    def setup(self, stage: str) -> None:
        """Find the usable levels, generate the evaluation set, and keep its questions out of training."""
        if self.eval_problems:
            return
        module: Any = self.trainer.lightning_module if self.trainer else None
        self.collective = module.join(self.trainer, stage)
        if not (self.prompt.always_shows_examples or module.sft_steps):
            raise UserError("data.examples_for: sft_steps has no effect while model.sft_steps is 0; set one of the two")
        tokenizer = load_tokenizer(module.policy_config.model_name_or_path)
        self.shown = self.prompt.template(tokenizer)
        self.template = self.shown if self.prompt.always_shows_examples else self.prompt.template(tokenizer)
        self.opening = self.template.opening
        if self.curriculum is not None:
            # A run without a curriculum is evaluated on these problems, and the two runs may be compared.
            self._held_out = held_out_hashes(self.collective.broadcast(self._draw_eval_problems))
            self._show_examples(self._held_out)  # prompts are as long at all levels as with them
            self._candidates = {
                name: task.levels(self.mixture.own_levels[name]) for name, task in self.mixture.tasks.items()
            }
            # Which levels are too slow depends on the machine: rank 0 decides.
            self.mixture.set_levels(self.collective.broadcast(self._usable_levels))
            self.teardown(stage)  # the running workers do not have the levels
        self._prepare(stage == "fit")

    def _usable_levels(self) -> dict[str, tuple[dict[str, Any], ...]]:
        """The usable levels of each task; those that cannot be used are logged with the reason."""
        own, tasks, seconds = self.mixture.own_levels, self.mixture.tasks, min(self.problem_seconds, MAX_SECONDS)
        number = sum(len(levels) for levels in self._candidates.values())
        log.warning(f"data.curriculum: trying {number} levels, each for {seconds:g} s at most")
        checked = check_levels(tasks, self._candidates, seconds, max(self.num_workers, 1), self._is_short)
        for name, checks in checked.items():
            for check in checks if own[name] else ():
                if check.wrong is not None and check.wrong.startswith(REFUSED):
                    raise UserError(f"datasets.{name}.levels[{check.number}]: {check.wrong}")
            if (line := left_out(name, checks)) is not None:
                log.warning(line)
        return {name: usable(checks) for name, checks in checked.items()}

    def _is_short(self, task: str, question: str) -> bool:
        return len(self.shown.token_ids(question, task)) <= self.max_prompt_tokens

    def _show_examples(self, held_out: frozenset[bytes]) -> dict[str, list[Turn]]:
        """Put the worked examples into the prompts. They are those of `eval_seed`, so that runs with other seeds have the same."""
        of = self.mixture, self.prompt, self.eval_seed, held_out, self.make
        self.examples = self.collective.broadcast(lambda: worked_examples(*of))
        if self.examples:
            self.shown.show(self.examples)
        return self.examples

    def _prepare(self, fitting: bool) -> None:
        """Make the evaluation set and the stream; warn where the evaluation holds out a large share of a task."""
        if self.curriculum is not None:
            numbers = {task: len(levels) for task, levels in self.mixture.levels_of.items()}
            self.scheduler = CurriculumScheduler(self.curriculum, numbers, self.mixture.weights)
        # Problems that are too slow are skipped, which depends on the machine: rank 0 decides.
        self.eval_problems = self.collective.broadcast(self._draw_eval_problems)
        self.collective.broadcast(lambda: try_own(self.mixture, self.eval_problems, self.eval_seed, self.make))
        held_out = held_out_hashes(self.eval_problems) | self._held_out
        held_out |= shown_hashes(self._show_examples(held_out))
        schedule = None if self.scheduler is None else self.scheduler.schedule
        limit = self.max_prompt_tokens
        orders = epoch_orders(self.mixture, self.seed, held_out, self.shown, limit) if fitting else {}
        of = self.mixture, self.template, self.seed, held_out, limit
        self.stream = PromptStream(*of, problem=self.make, schedule=schedule, also=self.shown, orders=orders)
        if fitting:
            shares = self.collective.broadcast(
                lambda: held_out_share(self.mixture, self.seed, held_out, make=self.make)
            )
            for line in (*small_tasks(shares), *few_problems(orders, self.mixture, self.prompts_per_step)):
                log.warning(line)

    def _draw_eval_problems(self) -> tuple[Problem, ...]:
        return eval_problems(self.mixture, self.eval_seed, self.eval_num_samples, self.make)

    def advance(self, cursor: int, accuracies: Sequence[tuple[Problem, float]]) -> None:
        """End a training step: move the cursor, record the accuracies, and with a curriculum update the levels.

        Args:
            cursor: the stream position after the step.
            accuracies: each sampled group's problem, and the share of its completions that are exactly right.
        """
        self.cursor = cursor
        for problem, success in accuracies:
            self.record.add(problem.task, problem.level, success)
        if self.scheduler is not None:
            self.scheduler.update(accuracies, cursor, lag=self.prompts_per_step * _LAG_STEPS)

    def train_dataloader(self) -> Iterable[PromptBatch]:
        """An endless stream of PromptBatches, from the cursor on.

        Raises:
            UserError: the curriculum starts at a level that a task does not have.
        """
        if self.scheduler is not None:
            self.scheduler.refuse_missing_levels()  # not earlier: a resumed run has its checkpoint's levels
        return _Batches(self)

    def extra_prompts(self, count: int) -> PromptBatch:
        """`count` prompts outside the stream, for a step in which too few groups have reward variance. They have separate
        slots, so the stream and the batches that Lightning has already fetched do not change."""
        slots = range(EXTRA_SLOTS + self.extra_cursor, EXTRA_SLOTS + self.extra_cursor + count)
        self.extra_cursor += count
        return self.collective.broadcast(lambda: collate(prompts_at(self.stream, slots)))

    def with_examples(self, prompts: PromptBatch) -> PromptBatch:
        """The same problems with the worked examples before the question, as `model.sft_steps` are sampled."""
        shown = [Prompt(p, self.shown.token_ids(p.question, p.task), {}) for p in prompts.problems]
        return replace(collate(shown), cursor=prompts.cursor, skipped=prompts.skipped)

    def val_dataloader(self) -> Any:
        """The evaluation set for `validate`; empty in `fit`, where FixedEval evaluates in place of Lightning's own loop."""
        assert self.trainer is not None
        return [] if self.trainer.state.fn == "fit" else DataLoader(self.eval_batches(), batch_size=None)  # type: ignore[arg-type]

    def eval_batches(self, rows: int = 1024) -> list[PromptBatch]:
        """The evaluation set in batches of at most `rows` prompts; long prompts are not skipped. Besides the rollout's caches, a
        batch needs memory only for its token ids and draws."""
        prompts = [Prompt(p, self.template.token_ids(p.question, p.task), {}) for p in self.eval_problems]
        return [collate(prompts[i : i + rows]) for i in range(0, len(prompts), rows)]

    def teardown(self, stage: str) -> None:
        """Stop the workers; they are started again when they are needed."""
        if isinstance(self.make, ProblemWorkers):
            self.make.close()

    def settings(self) -> dict[str, Any]:
        """The settings that decide which prompts the stream yields, by name."""
        names = ("prompts_per_step", "max_prompt_tokens", "eval_num_samples", "eval_seed", "seed")
        tasks = {
            name: {"weight": self.mixture.weights[name], "environment": type(task).__qualname__, "config": task.config}
            for name, task in self.mixture.tasks.items()
        }
        settings = {name: getattr(self, name) for name in names}
        settings |= {"datasets": tasks, **self.prompt.in_force()}
        if self.curriculum is not None:
            settings |= {"curriculum": asdict(self.curriculum), "levels": self.mixture.own_levels}
        return settings

    def state_dict(self) -> dict[str, Any]:
        """The stream position, the recorded accuracies, and with a curriculum its schedule and the usable levels."""
        position = {"cursor": self.cursor, "extra_cursor": self.extra_cursor, "seed": self.seed}
        state: dict[str, Any] = {**position, "record": self.record.state()}
        if self.scheduler is not None:
            levels_of = {task: list(levels) for task, levels in self.mixture.levels_of.items()}
            state |= {"scheduler": self.scheduler.state(), "levels_of": levels_of, "candidates": self._candidates}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the stream, the recorded accuracies and the curriculum."""
        self.cursor, self.extra_cursor = state_dict["cursor"], state_dict.get("extra_cursor", 0)
        self.record.restore(state_dict.get("record", []))  # older checkpoints have neither
        if self.scheduler is None or "scheduler" not in state_dict:
            return
        if state_dict["candidates"] != self._candidates:
            return  # `validate` with another config uses that config's levels; `fit` is refused
        if (levels_of := state_dict["levels_of"]) != {
            task: list(levels) for task, levels in self.mixture.levels_of.items()
        }:
            # Which levels are too slow depends on the machine and its load.
            log.warning("the usable levels are not those of the checkpoint: continuing with the checkpoint's levels")
            self.mixture.set_levels(levels_of)
            self.teardown("fit")  # the running workers have the other levels
            assert self.trainer is not None
            self._prepare(self.trainer.state.fn == "fit")
        self.scheduler.restore(state_dict["scheduler"])


class _Batches:
    """The iterable for Lightning; each iteration starts at the data module's cursor."""

    def __init__(self, data: PromptDataModule) -> None:
        self.data = data

    def __iter__(self) -> Iterator[PromptBatch]:
        """Rank 0 draws: which problems are skipped because they take too long depends on the machine."""
        size, ranks = self.data.prompts_per_step, self.data.collective
        prompts = prompts_from(self.data.stream, self.data.cursor, ahead=size * _STEPS_AHEAD)
        try:
            while True:
                yield ranks.broadcast(lambda: collate(list(islice(prompts, size))))
        finally:
            prompts.close()
