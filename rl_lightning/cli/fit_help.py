"""The help of `fit`, `validate` and `plan`: an overview at once, and every setting by topic, this project's before Lightning's."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from rl_lightning.cli.program import program
from rl_lightning.cli.quiet import loading
from rl_lightning.types import UserError

ALL = "all"
"""The topic that has every setting."""

TOPICS: dict[str, tuple[str, str]] = {
    "run": (
        "how a run is begun, resumed, saved and shown",
        "config print_config ckpt_path verbose seed_everything checkpoint run_directory push_to_hub progress_bar rollout_log "
        "rollout_table diagnostics",
    ),
    "tasks": (
        "what is trained on, and how hard it is",
        "data data.datasets data.curriculum data.prompts_per_step data.num_workers data.problem_seconds",
    ),
    "prompts": (
        "how a question is asked, and an answer given",
        "data.system_prompt data.chat_template_kwargs data.max_prompt_tokens data.answer_format data.prefill "
        "data.examples data.examples_for data.own_examples data.prompt_template",
    ),
    "policy": ("the model, its adapter and its precision", "model.policy"),
    "sampling": ("how completions are sampled", "model.sampling model.engine"),
    "reward": ("how completions are scored", "model.reward model.score_workers model.score_seconds"),
    "objective": ("the loss", "model.objective"),
    "optimizer": (
        "the update",
        "model model.learning_rate model.lr_schedule model.warmup_steps model.weight_decay model.max_grad_norm "
        "model.token_budget model.sft_steps",
    ),
    "evaluation": ("the fixed evaluation", "fixed_eval data.eval_num_samples data.eval_seed"),
    "trainer": ("Lightning's Trainer", "trainer"),
}
"""Topic to what it is about, and the settings that it has, each with all that are below it unless another topic has these."""

_VERBS = {
    "fit": (
        "Train a policy, or resume its training.",
        "fit --config quickstart",
        "fit --config qwen2.5-3b --trainer.max_steps=100 --ckpt_path auto",
    ),
    "validate": (
        "The fixed evaluation of a checkpoint or an adapter, or of the model before training. The settings are those of fit.",
        "validate --config outputs/quickstart/config.yaml --ckpt_path last",
        "validate --config qwen2.5-3b --ckpt_path outputs/qwen2.5-3b/checkpoint-100",
    ),
    "plan": (
        "Whether a run fits in memory, and with which settings; nothing is loaded or written. The settings are those of fit.",
        "plan --config qwen2.5-3b --vram 8",
        "plan --config qwen2.5-7b --vram 24 --cards 2 --model.sampling.max_new_tokens=1024",
    ),
}

_OF_PLAN = """\
  --vram GB                                memory of the GPU, in GB (10^9 bytes), which need not be in this machine;
                                           default: this machine's GPU, or else its CPU
  --cards N                                GPUs that the model is laid over; default: model.policy.devices_per_replica
"""

_OVERVIEW = """\
usage: {program} {verb} --config FILE [--config FILE ...] [--SETTING=VALUE ...]

{about}

  {program} {first}
  {program} {second}

  --config FILE                            the settings: a file, or the name of a config that ships; a later one overrides
{options}  --SETTING=VALUE                          one setting; it overrides the configs before it

Settings that matter most:
  --trainer.max_steps=N                    optimizer steps
  --trainer.default_root_dir=DIR           the run's directory
  --ckpt_path=last                         resume from the newest checkpoint; auto: if there is one
  --seed_everything=N                      seed of problems, sampling and adapters
  --data.datasets.TASK.KEY=VALUE           change one value of a task, such as chain_sum.config.max_terms=6
  --data.datasets+=TASK                    add a task; --data.datasets-=TASK takes one out
  --data.prompts_per_step=B                prompts of a rollout
  --data.curriculum={{}}                     difficulty that follows the policy's accuracy
  --model.policy.model_name_or_path=MODEL  a directory or a hub name
  --model.policy.lora_r=R                  rank of the adapter; 0 trains all weights
  --model.sampling.num_generations=G       completions of each prompt
  --model.sampling.max_new_tokens=T        length limit of a completion, tokens
  --model.objective.loss_type=dapo         or grpo, dr_grpo, bnpo
  --model.reward=CLASS                     WeightedReward, or your own by its path
  --model.learning_rate=X                  of AdamW
  --fixed_eval.fixed_eval_steps=N          steps between evaluations
  --checkpoint.save_steps=N                steps between checkpoints

Topics, by --help TOPIC:
{topics}
--help all shows every setting; --help model.sampling.top_p, or any other name, what is below it;
--model.reward.help CLASS the settings of a class; --print_config all settings with their values."""


def asked_topic(words: Sequence[str]) -> str | None:
    """What help is asked for.

    Args:
        words: the command line.

    Returns:
        the topic, "" for the overview; None where no help is asked for.
    """
    for number, word in enumerate(words):
        if word.startswith("--help="):
            return word.removeprefix("--help=")
        if word in ("-h", "--help"):
            after = words[number + 1 : number + 2]
            return after[0] if after and not after[0].startswith("-") else ""
    return None


def print_help(verb: str, topic: str) -> None:
    """Print the help of a verb.

    Args:
        verb: fit, validate or plan.
        topic: a topic, `all`, the beginning of settings' names, or "" for the overview.

    Raises:
        UserError: there is no such topic.
    """
    if not topic:
        print(_overview(verb))
        return
    with loading("torch, transformers, PEFT and Lightning"):
        from rl_lightning.cli.read_only import settings_parser

    print(settings_help(settings_parser("fit" if verb == "plan" else verb), verb, topic.removeprefix("--")))


def _overview(verb: str) -> str:
    about, first, second = _VERBS[verb]
    topics = "".join(f"  {name:12} {what}\n" for name, (what, _) in TOPICS.items())
    options = _OF_PLAN if verb == "plan" else ""
    named = {"program": program(), "verb": verb, "about": about, "first": first, "second": second}
    return _OVERVIEW.format(**named, options=options, topics=topics)


def settings_help(parser: Any, verb: str, topic: str) -> str:
    """The help of some settings, from the parser that reads them.

    Args:
        parser: of `fit` or `validate`.
        verb: what the user called.
        topic: see `print_help`.

    Raises:
        UserError: there is no such topic.
    """
    by_topic: dict[str, list[Any]] = {name: [] for name in TOPICS}
    for action in parser._actions:
        if (name := setting_of(action)) and name != "help":
            by_topic[topic_of(name)].append(action)
    if topic in TOPICS:
        by_topic = {topic: by_topic[topic]}
    elif topic != ALL:
        below = [each for of in by_topic.values() for each in of if _is_below(setting_of(each), topic)]
        if not below:
            raise UserError(f"--help {topic}: {_nearest(topic, by_topic)}")
        by_topic = {topic: below}
    parser.usage = f"{program()} {verb} --config FILE [--config FILE ...] [--SETTING=VALUE ...]"
    parser.description = None
    parser._action_groups = []
    for name, actions in by_topic.items():
        title = f"{name}: {TOPICS[name][0]}" if name in TOPICS else name
        parser.add_argument_group(title)._group_actions = actions
    return str(parser.format_help()).rstrip()


def setting_of(action: Any) -> str:
    """The name of the setting that an action of the parser reads; "" where it reads none."""
    return next((option[2:] for option in action.option_strings if option.startswith("--")), "")


def topic_of(name: str) -> str:
    """The topic that has a setting: the one that has the longest beginning of its name."""
    found = [
        (len(start), topic)
        for topic, (_, starts) in TOPICS.items()
        for start in starts.split()
        if _is_below(name, start)
    ]
    return max(found)[1]


def _is_below(name: str, start: str) -> bool:
    return name == start or name.startswith(f"{start}.")


def _nearest(topic: str, by_topic: dict[str, list[Any]]) -> str:
    names = [setting_of(each) for of in by_topic.values() for each in of]
    last = {name.rpartition(".")[2]: name for name in names}
    near = difflib.get_close_matches(topic, [*TOPICS, *names, *last], n=1)
    meant = near[0] if near and near[0] in TOPICS else last.get(*near, *near) if near else ""
    hint = f"did you mean {meant}? " if meant else ""
    return f"there is no such topic and no such setting; {hint}the topics are {', '.join(TOPICS)} and {ALL}"
