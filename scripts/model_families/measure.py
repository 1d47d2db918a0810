"""Measure the policy and its rollouts on one model, against plain transformers and plain PEFT with the same weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

from model_families.families import SPARE, WORDS, Family, write_model
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.lora import dense_weight
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.rollout.self_test import self_test
from rl_lightning.types import PromptBatch, Rollout, UserError

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Largest difference of a log-prob that is right, in float32, in nats."""
GRADIENT_TOLERANCE = 1e-5
"""Largest difference of a gradient that is right, in float32, relative to its norm."""

PROMPT_LENGTHS = (5, 30, 9, 13, 22, 7, 17, 26)
SAMPLING = Sampling(num_generations=3, max_new_tokens=24, max_rollout_rows=10)
END_TOKENS = torch.arange(3, WORDS, 25)
"""Tokens that end a completion while sampling, so that completions are of unequal length."""


@dataclass(frozen=True)
class In16Bits:
    """Median absolute differences in bf16 to the plain forward of the same weights in float32, in nats.

    Medians, because in a mixture of experts rounding may send a token to another expert, on either side.

    Attributes:
        update: of the policy's log-probs.
        theirs: of transformers' own log-probs, of the same tokens.
        sampler: of the rollout's log-probs.
        decoder: what the rollout ran on.
    """

    update: float
    theirs: float
    sampler: float
    decoder: str

    @property
    def right(self) -> bool:
        """Whether the differences are of the size that rounding gives transformers itself."""
        # Written so that NaN is wrong.
        return all(each <= 1.5 * self.theirs + 0.002 for each in (self.update, self.sampler))


@dataclass(frozen=True)
class Measured:
    """What was measured on one model; differences are to plain transformers and PEFT.

    Attributes:
        decoder: class name of what the rollout ran on.
        update: largest difference of the update's log-probs.
        sampler: largest difference of the sampler's log-probs.
        gradient: largest difference of an adapter's gradient, relative to its norm.
        greedy: number of prompts whose greedy completions equal those of `generate`.
        bf16: the same model in 16 bits, if measured.
    """

    decoder: str
    update: float
    sampler: float
    gradient: float
    greedy: int
    bf16: In16Bits | None = None

    @property
    def right(self) -> bool:
        """Whether all is as near as rounding allows."""
        # Written so that NaN is wrong.
        close = all(each <= TOLERANCE for each in (self.update, self.sampler)) and self.gradient <= GRADIENT_TOLERANCE
        return close and self.greedy == len(PROMPT_LENGTHS) and (self.bf16 is None or self.bf16.right)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: the family.
        quantization: nf4 or none.
        verdict: "right", "WRONG", "refused: …" or "CRASH: …".
        measured: None where it was refused or crashed.
    """

    name: str
    quantization: str
    verdict: str
    measured: Measured | None = None

    @property
    def failed(self) -> bool:
        """Whether it is wrong or crashed."""
        return self.verdict.startswith(("WRONG", "CRASH"))


def row(name: str, family: Family, quantization: str, bf16: bool = True, spare: int = SPARE) -> Row:
    """Measure a small model of a family.

    Args:
        name: the family's name in the table.
        family: the family.
        quantization: nf4 or none.
        bf16: whether to measure it in bf16 too.
        spare: ids of the vocabulary that the tokenizer has no words for.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        write_model(family, directory, spare)
        try:
            measured = measure(directory, quantization, bf16)
        except UserError as error:
            return Row(name, quantization, f"refused: {str(error).replace(str(directory), '…')}")
        except Exception as error:  # whatever it is, the other families are measured too
            lines = str(error).strip().splitlines() or [""]
            return Row(name, quantization, f"CRASH: {type(error).__name__}: {lines[0]}")
    return Row(name, quantization, "right" if measured.right else "WRONG", measured)


def measure(directory: Path, quantization: str, bf16: bool) -> Measured:
    """Measure the model in a directory.

    Raises:
        UserError: the model is refused.
    """
    batch = prompts()
    policy, engine = start(directory, quantization, "float32")
    policy.save(directory.parent / "adapter")
    plain = plain_model(directory, quantization, torch.float32)
    rollout = sample(policy, engine, batch)
    theirs = plain_log_probs(plain, rollout)
    ours = update_log_probs(policy, rollout)
    result = Measured(
        decoder=type(engine.decoder).__name__,
        update=largest(ours - theirs),
        sampler=largest(rollout.sampling_logps[rollout.mask] - theirs),
        gradient=gradient_difference(policy, plain, ours, theirs),
        greedy=greedy_agreement(policy, engine, plain, batch),
    )
    if not bf16:
        return result
    return Measured(**vars(result) | {"bf16": in_16_bits(directory, quantization, rollout)})


def in_16_bits(directory: Path, quantization: str, rollout: Rollout) -> In16Bits:
    """Measure the model in bf16, against its 16-bit weights in float32.

    Args:
        directory: the model.
        quantization: nf4 or none.
        rollout: N completions, for the log-probs of the update.
    """
    policy, engine = start(directory, quantization, "bfloat16")
    own_rollout = sample(policy, engine, prompts())
    plain = plain_model(directory, quantization, torch.bfloat16)
    with torch.no_grad():
        ours, theirs = update_log_probs(policy, rollout), plain_log_probs(plain, rollout)
        plain.float()
        exact = plain_log_probs(plain, rollout)
        differences = own_rollout.sampling_logps[own_rollout.mask] - plain_log_probs(plain, own_rollout)
    update, plain_update, sampler = (float(each.abs().median()) for each in (ours - exact, theirs - exact, differences))
    return In16Bits(update, plain_update, sampler, type(engine.decoder).__name__)


def start(directory: Path, quantization: Any, dtype: Any) -> tuple[Policy, LocalEngine]:
    """A policy whose adapters have values, and an engine that has read them.

    Raises:
        UserError: the model is refused, or is not for sequences of this length.
    """
    policy = Policy(PolicyConfig(str(directory), quantization=quantization, dtype=dtype), CPU)
    self_test(policy, merged=True)
    policy.refuse_longer(max(PROMPT_LENGTHS) + SAMPLING.max_new_tokens)
    engine = LocalEngine()
    engine.start(policy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:  # they start at zero
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    engine.sync_weights()
    return policy, engine


def prompts() -> PromptBatch:
    """Prompts of unequal length, of random words."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 600, (len(PROMPT_LENGTHS), max(PROMPT_LENGTHS)), generator=generator)
    lengths = torch.tensor(PROMPT_LENGTHS)
    problems: Any = (None,) * len(lengths)
    return PromptBatch(problems, torch.where(torch.arange(ids.shape[1]) < lengths[:, None], ids, 0), lengths, 0)


def sample(policy: Policy, engine: LocalEngine, batch: PromptBatch) -> Rollout:
    """Completions of unequal length."""
    policy.eos_token_ids = END_TOKENS
    rows = len(batch) * SAMPLING.num_generations
    draws = draw_uniforms(torch.Generator().manual_seed(3), rows, SAMPLING.max_new_tokens)
    return engine.generate(batch, SAMPLING, draws)


def update_log_probs(policy: Policy, rollout: Rollout) -> Tensor:
    """(M,) log-probs of the completions' tokens, row by row, as an update computes them: in several packed micro-batches."""
    logps = torch.full(rollout.mask.shape, torch.nan)
    for micro in pack(rollout, torch.arange(len(rollout.mask)), token_budget=200):
        logps = logps.index_put((micro.row_of, micro.column_of), policy.log_probs(micro, 1.0)[0])
    return logps[rollout.mask]


def plain_model(directory: Path, quantization: str, dtype: torch.dtype) -> Any:
    """The base by plain transformers with eager attention, 4-bit weights dequantised, and the adapter by plain PEFT."""
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    base = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype,
        attn_implementation="eager",
        quantization_config=four_bits if quantization == "nf4" else None,
    )
    dequantize(base)
    return PeftModel.from_pretrained(base, str(directory.parent / "adapter"), is_trainable=True).eval()


def dequantize(model: nn.Module) -> None:
    """Replace 4-bit layers by dense ones of the same values."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, bnb.nn.Linear4bit):
                dense = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
                dtype = layer.compute_dtype
                dense.weight = nn.Parameter(dense_weight(layer).to(dtype), requires_grad=False)
                dense.bias = layer.bias
                setattr(parent, name, dense)


def plain_log_probs(plain: Any, rollout: Rollout) -> Tensor:
    """(M,) log-probs of the completions' tokens, each row by itself, among the ids that have words."""
    found = []
    for each, (ids, length) in enumerate(zip(rollout.completion_ids, rollout.lengths.tolist(), strict=True)):
        group = each // rollout.group_size
        prompt = rollout.prompt_ids[group, : rollout.prompt_lengths[group]]
        logits = plain(input_ids=torch.cat([prompt, ids[:length]])[None], use_cache=False).logits[0]
        wordless = torch.arange(logits.shape[1]) >= WORDS
        log_probs = logits[len(prompt) - 1 : -1].float().masked_fill(wordless, -torch.inf).log_softmax(-1)
        found.append(log_probs.gather(1, ids[:length, None]).squeeze(1))
    return torch.cat(found)


def gradient_difference(policy: Policy, plain: Any, ours: Tensor, theirs: Tensor) -> float:
    """Largest difference of an adapter's gradient of the summed log-probs, relative to the norm of theirs.

    Norms below a thousandth of the largest count as that: of such a gradient little more than rounding is left.
    """
    gradients = []
    for model, logps in ((policy.model, ours), (plain, theirs)):
        logps.sum().backward()
        named = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        # An expert that no token reached has none.
        gradients.append({name: grad for name, grad in named.items() if grad is not None and bool(grad.any())})
    mine, other = gradients
    if mine.keys() != other.keys():
        return torch.inf
    floor = 1e-3 * max(float(grad.norm()) for grad in other.values())
    relative = [(mine[k] - other[k]).norm() / other[k].norm().clamp(min=floor) for k in other]
    return largest(torch.stack(relative))


def greedy_agreement(policy: Policy, engine: LocalEngine, plain: Any, batch: PromptBatch) -> int:
    """Number of prompts whose greedy completions equal `generate`'s, token for token; nothing ends them early."""
    policy.eos_token_ids = torch.empty(0, dtype=torch.int64)
    ours = engine.generate(batch, SAMPLING, None).completion_ids
    spare = list(range(WORDS, plain.get_output_embeddings().weight.shape[0]))
    settings = GenerationConfig(
        max_new_tokens=SAMPLING.max_new_tokens, do_sample=False, pad_token_id=0, suppress_tokens=spare or None
    )
    base = plain.get_base_model()  # whose own generation config would fill in an end token
    base.generation_config = settings
    equal = 0
    for k, length in enumerate(PROMPT_LENGTHS):
        ids = batch.prompt_ids[k : k + 1, :length]
        theirs = base.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        equal += torch.equal(ours[k], theirs[0, length:])
    return equal


def largest(difference: Tensor) -> float:
    """Largest absolute value; NaN if there is one."""
    return float(difference.detach().abs().max())
