"""Define the workloads: a model and its prompts, the same for both sides."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from benchmark.task_prompts import TaskPrompts
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.policy.config import resolve_name
from rl_lightning.types import Problem, UserError

_ROOT = Path(__file__).parents[2]
NEVER_ENDS = 1e-12
"""Probability of the EOS token at each position, if completions are to run to the length limit."""


@dataclass(frozen=True)
class Shape:
    """A Qwen2 with random weights and tied embeddings."""

    vocabulary: int = 151_936
    layers: int = 4
    width: int = 256
    mlp: int = 1024
    heads: int = 4
    kv_heads: int = 2

    @classmethod
    def of(cls, model: str | Path) -> Shape:
        """The shape of a model in a directory."""
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        names = ("vocab_size", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
        return cls(*(config[name] for name in (*names, "num_key_value_heads")))


@dataclass(frozen=True)
class Workload:
    """What one step has to do.

    Attributes:
        name: the workload's name on the command line and in the tables.
        prompts: B, prompts per step.
        generations: G, completions per prompt.
        new_tokens: length limit of a completion.
        shape: shape of a random model; None is the config's own.
        config: the config whose tasks are asked, and how; its name in configs/.
        prompt_tokens: length of every prompt; 0 leaves the questions as they are.
        mean_tokens: mean for a random model's completions, whose lengths are geometric and truncated at the limit; infinity
            lets all of them run to it.
        peer_rows: completions in one forward pass of the peer's update. 8 is its default: no slower than all at once, and a
            quarter of the memory.
        steps: counted steps per process.
        peer_warm_up: the peer's steps before these.
    """

    name: str
    prompts: int
    generations: int
    new_tokens: int
    shape: Shape | None = None
    config: str = "quickstart"
    prompt_tokens: int = 0
    mean_tokens: float = math.inf
    peer_rows: int = 8
    steps: int = 2
    peer_warm_up: int = 1

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Workload:
        """From `dataclasses.asdict`."""
        shape = fields["shape"]
        return cls(**{**fields, "shape": shape and Shape(**shape)})

    @property
    def rows(self) -> int:
        """N, completions per step."""
        return self.prompts * self.generations


WORKLOADS = {
    w.name: w
    for w in (
        Workload("tiny", 8, 8, 32, peer_rows=16, steps=20),
        Workload("vocabulary", 4, 8, 128, Shape(), steps=1),
        Workload("prefix", 4, 16, 128, Shape(), prompt_tokens=512, steps=1, peer_warm_up=0),
        Workload("unequal", 4, 16, 256, Shape(32_768), mean_tokens=64, steps=2),
        Workload("smollm2", 6, 8, 40, config="smollm2-135m", steps=3),
    )
}

SCALING = tuple(
    replace(point, name=f"scaling {point.name}")
    for point in (
        Workload("base", 4, 16, 64, Shape(32_768)),
        Workload("group 4", 16, 4, 64, Shape(32_768)),
        Workload("group 64", 1, 64, 64, Shape(32_768)),
        Workload("length 256", 4, 16, 256, Shape(32_768)),
        Workload("length 512", 4, 16, 512, Shape(32_768), steps=1),
        Workload("vocabulary 151,936", 4, 16, 64, Shape()),
        Workload("all at their most", 1, 64, 512, Shape(), steps=1),
    )
)
"""64 completions per step; from the base, one of group size, length and vocabulary grows at a time, and finally all of them do.

With the number of completions fixed, a group's size changes only how many of them share a prompt.
"""


def make_model(workload: Workload, directory: Path) -> str:
    """Write the workload's model where both sides can read it; returns its path."""
    if workload.shape is None:
        return model_of(read_config(workload.config))
    tokenizer = _enlarged_tokenizer(Path(resolve_name("tiny")), directory, workload.shape.vocabulary)
    shape = workload.shape
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    _set_end_probability(model, tokenizer.eos_token_id, max(1 / workload.mean_tokens, NEVER_ENDS))
    model.save_pretrained(directory)
    return str(directory)


def _enlarged_tokenizer(source: Path, directory: Path, vocabulary: int) -> Any:
    """The tiny policy's tokenizer with tokens added that are only ever decoded, one for every token that can be sampled."""
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = tokenizer["model"]["vocab"]
    tokens.update({f"Ġw{number}": number for number in range(len(tokens), vocabulary)})
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (directory / name).write_bytes((source / name).read_bytes())
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return AutoTokenizer.from_pretrained(directory)


@torch.no_grad()
def _set_end_probability(model: Any, end: int, probability: float) -> None:
    """Make the EOS token about equally likely at every position, whatever was written before.

    All embeddings get the direction (1, …, 1), so that the last hidden state h has a large and steady component along it;
    the EOS token's embedding is a multiple of it, by which its logit can be set against the others'.
    """
    embedding = model.get_input_embeddings().weight
    embedding += 1
    ids = torch.randint(len(embedding), (4, 32), generator=torch.Generator().manual_seed(1))
    hidden = model.model(input_ids=ids).last_hidden_state.flatten(0, 1)
    others = (hidden @ embedding.T).logsumexp(dim=1)
    wanted = others + math.log(probability / (1 - probability))
    embedding[end] = float((wanted / hidden.sum(dim=1)).mean())


def read_config(name: str) -> dict[str, Any]:
    """A config of configs/, by its name without `.yaml`."""
    config: dict[str, Any] = yaml.safe_load((_ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return config


def model_of(config: dict[str, Any]) -> str:
    """The directory of a config's model: of a bundled one, or of one in models/ in place of the hub's.

    Raises:
        UserError: it is not there.
    """
    name = config["model"]["policy"]["model_name_or_path"]
    if (bundled := resolve_name(name)) != name:
        return bundled
    directory = _ROOT / "models" / Path(name).name
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: there is no such model; make it first: python scripts/smollm2.py")
    return str(directory)


def problems(workload: Workload, asked: TaskPrompts, steps: int) -> list[Problem]:
    """The problems of all steps in order; the same in every process."""
    found, length = asked.problems(steps * workload.prompts), workload.prompt_tokens
    return [replace(p, question=_lengthened(p.question, asked.template, length)) for p in found] if length else found


def _lengthened(question: str, template: PromptTemplate, tokens: int) -> str:
    """The question repeated, then digits, one token each, up to exactly that length."""
    text = question.strip()
    while len(template.token_ids(f"{text} {question.strip()}")) <= tokens:
        text = f"{text} {question.strip()}"
    text += "7" * (tokens - len(template.token_ids(text)))
    assert len(template.token_ids(text)) == tokens
    return text
