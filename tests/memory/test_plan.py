"""The memory plan against what is really allocated, and what it decides."""

from __future__ import annotations

import gc
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import yaml
from bitsandbytes.nn import Linear4bit
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    MixtralConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from rl_lightning.memory import (
    Device,
    HeldModel,
    MemoryBreakdown,
    MemoryLimits,
    Plan,
    PlannedSettings,
    RolloutMemory,
    StepShape,
    arithmetic,
    device_memory,
    gpu_of_size,
    make_plan,
    table,
)
from rl_lightning.memory.phases import predict
from rl_lightning.memory.plan import ENOUGH_TOKENS, MAX_TOKENS
from rl_lightning.memory.shapes import known_models, model_shape, shape_of
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.policy.loading import load_model
from rl_lightning.policy.lora import is_adapted
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.policy_decoder import decoder_of
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.types import Problem, PromptBatch, Rollout, UserError
from tests.conftest import ROOT

CPU = torch.device("cpu")
ENGINE = LocalEngine()
COMPUTER = device_memory(torch.device("cpu"))
QWEN = "Qwen/Qwen2.5-{}-Instruct"
STEP = StepShape(prompts=8, group=8, prompt_tokens=512, new_tokens=512)


def peak_bytes(work) -> int:
    """Of what the work allocates, at most at one time."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()
    live = most = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        live += size
        most = max(most, live)
    return most


def policy_of(config, directory, **settings) -> tuple[Policy, HeldModel]:
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)
    for file in EMBEDDED["tiny"].iterdir():
        if file.name.startswith(("tokenizer", "chat_template")):
            shutil.copy(file, directory)
    policy = Policy(PolicyConfig(str(directory), **settings), CPU)
    policy.head = replace(policy.head, words=config.vocab_size)  # as with a tokenizer of that size
    bytes_per_element = 4 if policy.compute_dtype == torch.float32 else 2
    return policy, HeldModel(shape_of(config), bytes_per_element, settings["quantization"] == "nf4", 16)


def auto_plan(config: PolicyConfig, step: StepShape, device: Device) -> Plan:
    """With tokens and rows left to the plan, and rollouts by the policy itself."""
    return make_plan(config, step, "auto", "auto", device, ENGINE)


def comes_and_goes(parts: MemoryBreakdown) -> float:
    """Bytes that are allocated and freed within a phase."""
    return sum(parts.get(part, 0) for part in ("cache", "activations", "logits", "workspace"))


def full_length(step: StepShape) -> Rollout:
    mask = torch.ones(step.rows, step.new_tokens, dtype=torch.bool)
    prompt_ids = torch.randint(3, 600, (step.prompts, step.prompt_tokens))
    lengths = torch.full((step.prompts,), step.prompt_tokens)
    ids = torch.randint(3, 600, mask.shape)
    return Rollout(prompt_ids, lengths, ids, mask, mask * 0.0, mask.any(1), ("",) * step.rows)


SIZES = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 2}
DEEP = Qwen2Config(hidden_size=128, intermediate_size=512, vocab_size=640, **SIZES)
NORMED = Qwen3Config(hidden_size=128, intermediate_size=512, vocab_size=640, head_dim=64, **SIZES)
CAPPED = Gemma2Config(
    hidden_size=64, intermediate_size=96, vocab_size=640, head_dim=16, attn_logit_softcapping=50.0, **SIZES
)
WIDE_ATTENTION = Qwen3Config(hidden_size=128, intermediate_size=96, vocab_size=640, head_dim=64, **SIZES)
WIDE_HEAD = Qwen2Config(hidden_size=64, intermediate_size=96, vocab_size=20_000, **SIZES)


@pytest.mark.parametrize(
    ("config", "quantization", "dtype", "checkpointing"),
    [
        (DEEP, "nf4", "float32", False),
        (DEEP, "nf4", "bfloat16", True),
        (NORMED, "nf4", "float32", True),
        (WIDE_HEAD, "none", "float32", True),
        (CAPPED, "none", "float32", True),
        (CAPPED, "none", "float32", False),
    ],
)
def test_the_update_needs_what_was_predicted(config, quantization, dtype, checkpointing, tmp_path):
    names = {"gradient_checkpointing": "on" if checkpointing else "off"}
    policy, model = policy_of(config, tmp_path, quantization=quantization, dtype=dtype, **names)
    step = StepShape(prompts=2, group=4, prompt_tokens=32, new_tokens=96)
    (micro,) = pack(full_length(step), torch.arange(step.rows), 10**6)

    def update():
        policy.log_probs(micro, 1.0)[0].sum().backward()

    update()  # the gradient's own memory is another part
    settings = PlannedSettings(10**6, 8, checkpointing, merged=False)
    predicted = comes_and_goes(predict(model, step, settings, COMPUTER, ENGINE)["update"])
    assert predicted == pytest.approx(peak_bytes(update), rel=0.1)


@pytest.mark.parametrize(
    ("config", "rows", "merged"),
    [(DEEP, 16, True), (DEEP, 5, False), (WIDE_HEAD, 16, True), (WIDE_ATTENTION, 1, True), (CAPPED, 16, True)],
)
def test_the_rollout_needs_what_was_predicted(config, rows, merged, tmp_path):
    policy, model = policy_of(config, tmp_path, quantization="none", dtype="float32")
    decoder = decoder_of(policy, merged)
    step = StepShape(prompts=4, group=4, prompt_tokens=96, new_tokens=12)
    prompts = full_length(step)
    problems = tuple(Problem("", index=k) for k in range(step.prompts))
    batch = PromptBatch(problems, prompts.prompt_ids, prompts.prompt_lengths, 0)
    sampling = Sampling(step.group, step.new_tokens, max_rollout_rows=rows)

    def rollout():
        decoder.refresh()
        draws = draw_uniforms(torch.Generator(), step.rows, step.new_tokens)
        with decoder.ready():
            sample_groups(decoder, batch, sampling, torch.tensor([-1]), lambda ids: "", draws)

    rollout()
    predicted = comes_and_goes(
        predict(model, step, PlannedSettings(1, rows, True, merged), COMPUTER, ENGINE)["rollout"]
    )
    assert predicted == pytest.approx(peak_bytes(rollout), rel=0.1)


@pytest.mark.parametrize(("prompts", "samples"), [(16, 4), (4, 16)])
def test_an_evaluation_needs_no_more_than_a_rollout(prompts, samples, tmp_path):
    """Of more prompts than a step has, or of more completions of each, none of which ends before the limit."""
    config = {"quantization": "none", "dtype": "float32", "rollout_weights": "merged"}
    policy, _ = policy_of(WIDE_HEAD, tmp_path, **config)
    policy.eos_token_ids = torch.tensor([-1])
    step, sampling = StepShape(prompts=4, group=4, prompt_tokens=96, new_tokens=12), Sampling(samples, 12)
    plan = make_plan(PolicyConfig(str(tmp_path), **config), step, "auto", 100, Device("", "cpu", 8e9), ENGINE)
    engine = LocalEngine()
    engine.start(policy, plan, MemoryLimits.of(plan.settings.token_budget, plan.settings.max_rollout_rows))
    asked = full_length(replace(step, prompts=prompts))
    problems = tuple(Problem("", index=k) for k in range(prompts))
    batch = PromptBatch(problems, asked.prompt_ids, asked.prompt_lengths, 0)
    draws = draw_uniforms(torch.Generator(), prompts * samples, 12)

    def evaluate():
        engine.sync_weights()
        engine.generate(batch, sampling, draws)

    evaluate()
    assert peak_bytes(evaluate) <= 1.1 * comes_and_goes(plan.phases["rollout"])


PARAMETERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "mistralai/Ministral-8B-Instruct-2410": 8_019_808_256,
    "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "google/gemma-3-270m-it": 268_098_176,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-4b-it": 4_300_079_472,
    "openai/gpt-oss-20b": 20_914_757_184,
    "allenai/OLMo-2-0425-1B-Instruct": 1_484_916_736,
    "allenai/OLMo-2-1124-7B-Instruct": 7_298_617_344,
    "ibm-granite/granite-3.3-2b-instruct": 2_533_539_840,
    "tiiuae/Falcon3-1B-Instruct": 1_669_408_768,
    "tiiuae/Falcon3-3B-Instruct": 3_227_655_168,
}
"""As the model hub shows them."""


def test_shipped_shapes_have_as_many_parameters_as_the_models():
    assert {name: model_shape(name)[0].parameters for name in known_models()} == PARAMETERS


MIXTURE = Qwen3MoeConfig(
    hidden_size=256,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=128,
    vocab_size=640,
    head_dim=64,
    **SIZES,
)
VISION = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
MULTIMODAL = Gemma3Config(
    text_config=SIZES | {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 640, "head_dim": 64},
    vision_config=VISION | {"image_size": 28, "vision_use_head": False},
    mm_tokens_per_image=4,
)


@pytest.mark.parametrize("config", [MIXTURE, MULTIMODAL, DEEP], ids=lambda config: config.model_type)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_base_and_its_adapters_need_what_was_predicted(config, quantization, tmp_path):
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_model(PolicyConfig(str(tmp_path), quantization=quantization, dtype="bfloat16"), CPU, seed=0)
    shape, adapters = shape_of(config), [p for p in model.parameters() if p.requires_grad]
    held = {id(p): p.nbytes for p in model.parameters() if not p.requires_grad}
    scales = 0
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            scales += state.absmax.nbytes + state.state2.absmax.nbytes
    predicted = arithmetic.base(shape, 2, quantized=quantization == "nf4")
    assert predicted == pytest.approx(sum(held.values()) + scales, rel=0.01)
    assert arithmetic.adapter(shape, 16) == sum(p.nbytes for p in adapters)
    sizes = [m.in_features * m.out_features for m in model.modules() if is_adapted(m)]
    assert (shape.largest_linear, shape.linear_weights) == (max(sizes), sum(sizes))


def test_a_mixtures_tokens_go_through_few_experts():
    shared = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    assert shape_of(MIXTURE).mlp_width == 2 * 128
    assert shape_of(Qwen2MoeConfig(**SIZES, **shared, shared_expert_intermediate_size=48)).mlp_width == 2 * 32 + 48
    assert shape_of(MixtralConfig(**SIZES, intermediate_size=96, num_local_experts=4)).mlp_width == 2 * 96
    assert model_shape("openai/gpt-oss-20b")[0].mlp_width == 4 * 2880


def test_the_readmes_table_is_what_the_plan_says():
    lines = re.findall(r"^\| Qwen2.5-(\S+) \| (\d+) GB \|(.*)\|$", (ROOT / "README.md").read_text(), flags=re.M)
    assert len(lines) == 9
    for size, gigabytes, cells in lines:
        config = yaml.safe_load((ROOT / "configs" / f"qwen2.5-{size.lower()}.yaml").read_text())
        model, data = config["model"], config["data"]
        step = Sampling(**model["sampling"]).step_shape(data["prompts_per_step"], data["max_prompt_tokens"])
        # GPUs that the table is about have bfloat16.
        policy = PolicyConfig(**model["policy"], dtype="bfloat16")
        plan = auto_plan(policy, step, gpu_of_size(float(gigabytes)))
        own = plan.settings
        words = "on" if own.checkpointing else "off", "merged" if own.merged else "unmerged"
        expected = (f"{plan.peak / 1e9:.1f} GB", own.max_rollout_rows, own.token_budget, *words, own.graphs)
        assert [cell.strip() for cell in cells.split("|")] == [str(each) for each in expected]
        assert plan.fits


def test_every_shipped_shape_can_be_planned():
    for name in known_models():
        stored = model_shape(name)[1].to_dict().get("quantization_config")
        quantization = "none" if stored else "nf4"
        assert auto_plan(PolicyConfig(name, quantization=quantization), STEP, gpu_of_size(80)).fits


def test_weights_that_cannot_be_loaded_as_configured_are_not_planned():
    with pytest.raises(UserError, match="'openai/gpt-oss-20b' is stored quantised by mxfp4; set it to none"):
        auto_plan(PolicyConfig("openai/gpt-oss-20b"), STEP, gpu_of_size(80))


@pytest.mark.parametrize(("size", "gigabytes"), [("1.5B", 4), ("3B", 6), ("7B", 12)])
def test_the_gpus_that_we_promise(size, gigabytes):
    plan = auto_plan(PolicyConfig(QWEN.format(size)), STEP, gpu_of_size(gigabytes))
    assert plan.fits
    assert plan.settings.token_budget >= ENOUGH_TOKENS


def test_a_larger_gpu_never_gets_less_and_nothing_exceeds_its_memory():
    plans = [auto_plan(PolicyConfig(QWEN.format("3B")), STEP, gpu_of_size(v)) for v in range(2, 49, 2)]
    fitting = [plan for plan in plans if plan.fits]
    assert 3 < len(fitting) < len(plans)
    for less, more in pairwise(fitting):
        assert more.settings.max_rollout_rows >= less.settings.max_rollout_rows
        assert more.settings.checkpointing <= less.settings.checkpointing
        assert more.settings.merged >= less.settings.merged or not more.settings.checkpointing
    assert all(plan.peak <= plan.device.bytes for plan in fitting)
    assert plans[0].settings.max_rollout_rows == 1
    assert not fitting[-1].settings.checkpointing


@pytest.mark.parametrize("size", ["0.5B", "3B", "7B"])
def test_cuda_graphs_get_what_the_other_settings_leave(size):
    """All of them, kept with their cache, only where that fits too; on small cards as many as fit."""
    seen = set()
    for gigabytes in (3, 4, 6, 8, 10, 12, 16, 24, 80):
        plan = auto_plan(PolicyConfig(QWEN.format(size), dtype="bfloat16"), STEP, gpu_of_size(gigabytes))
        if not plan.fits:
            continue
        own = plan.settings
        phases = predict(plan.model, STEP, replace(own, graphs=0, keep_graphs=False), plan.device, ENGINE)
        cache, graphs = phases["rollout"]["cache"], plan.phases["rollout"].get("graphs", 0)
        assert (
            own.graphs == 16
            or sum(phases["rollout"].values()) + graphs * (own.graphs + 1) / own.graphs > plan.device.bytes
        )
        assert plan.phases["update"].get("cache", 0) == (cache - prompt_cache(plan) if own.keep_graphs else 0)
        more = phases["update"].get("logits", 0) + cache + graphs
        assert own.keep_graphs or sum(phases["update"].values()) + 1.2 * more > plan.device.bytes or own.graphs < 16
        seen.add((own.graphs == 16, own.keep_graphs))
    assert {(True, True), (True, False), (False, False)} == seen


def prompt_cache(plan: Plan) -> float:
    shape, tokens = plan.model.shape, plan.step.prompts * plan.step.prompt_tokens
    return 2 * shape.layers * shape.kv_heads * shape.head_width * plan.model.bytes_per_element * tokens


def test_there_are_no_cuda_graphs_on_a_cpu_or_on_several_cards():
    config = PolicyConfig(QWEN.format("0.5B"), dtype="bfloat16")
    for device in (Device("", "cpu", 80e9), gpu_of_size(80, cards=2)):
        plan = auto_plan(config, STEP, device)
        assert (plan.settings.graphs, plan.settings.keep_graphs) == (0, False)
        assert not any("graphs" in parts for parts in plan.phases.values())


def test_the_table_says_how_many_cuda_graphs_there_are():
    config = PolicyConfig(QWEN.format("3B"), dtype="bfloat16")
    for gigabytes, words in (
        (6, "5"),
        (8, "16"),
        (10, "16, kept from rollout to rollout with the cache"),
        (2.5, "none"),
    ):
        assert table(auto_plan(config, STEP, gpu_of_size(gigabytes))).endswith(f"CUDA graphs of decode steps: {words}")


def test_a_little_more_would_not_fit():
    plan = auto_plan(PolicyConfig(QWEN.format("7B")), STEP, gpu_of_size(12))
    assert plan.settings.token_budget < MAX_TOKENS["cuda"] or plan.settings.max_rollout_rows == STEP.rows
    small = auto_plan(PolicyConfig(QWEN.format("7B")), STEP, gpu_of_size(10))
    for more in (
        replace(small.settings, token_budget=2 * small.settings.token_budget),  # a group more
        replace(small.settings, max_rollout_rows=small.settings.max_rollout_rows + 8),
    ):
        phases = predict(small.model, small.step, more, small.device, ENGINE)
        assert max(sum(parts.values()) for parts in phases.values()) > small.device.bytes


@pytest.mark.parametrize(
    "step",
    [
        StepShape(4, 16, 30, 64),
        StepShape(16, 4, 30, 64),
        StepShape(1, 64, 30, 512),
        StepShape(2, 4, 100, 8),
        StepShape(8, 2, 900, 900),
        STEP,
    ],
)
@pytest.mark.parametrize("size", [6, 24])
def test_rows_of_full_length_fill_the_budget(step, size):
    plan = auto_plan(PolicyConfig(QWEN.format("1.5B")), step, gpu_of_size(size))
    budget, rollout, rows = plan.settings.token_budget, full_length(step), torch.arange(step.rows)
    micros = pack(rollout, rows, budget)
    largest = max(len(micro.input_ids) for micro in micros)
    in_rows = max(sum(block.numel() for block in micro.rows.blocks) for micro in micros)
    shorter = step.rows + step.prompts  # a completion's last token is not forwarded
    assert budget - shorter <= max(largest, in_rows / 2) <= budget
    assert len(pack(rollout, rows, budget + step.new_tokens // 2)) == len(micros)  # a little more would stay empty


def test_rollouts_elsewhere_need_what_their_engine_says():
    class Elsewhere:
        def memory(self, model, step, settings, device):
            assert device.bytes == 24e9
            return RolloutMemory(resident={"workspace": 1e9}, peaks=[{"cache": 2e9}, {"cache": 3e9}])

    config = PolicyConfig(QWEN.format("3B"), rollout_weights="unmerged")
    here, there = (make_plan(config, STEP, 2048, 64, gpu_of_size(24), e) for e in (ENGINE, Elsewhere()))
    assert there.phases["rollout"]["cache"] == 3e9
    assert there.phases["load"] == here.phases["load"]
    assert there.phases["update"]["workspace"] == 1e9 + here.phases["update"]["workspace"]
    assert "logits" not in there.phases["rollout"]


def test_what_is_asked_for_is_kept():
    config = PolicyConfig(QWEN.format("3B"), gradient_checkpointing="off", rollout_weights="merged")
    plan = make_plan(config, STEP, 999, 17, gpu_of_size(8), ENGINE)
    assert plan.settings == PlannedSettings(999, 17, checkpointing=False, merged=True)
    assert not plan.fits
    assert "does not fit, by" in table(plan)


def test_on_a_cpu_the_quickstart_is_not_held_back():
    plan = auto_plan(PolicyConfig("tiny"), StepShape(16, 16, 512, 64), Device("", "cpu", 8e9))
    assert plan.settings == PlannedSettings(
        2016, 256, checkpointing=False, merged=True
    )  # 7 rows of 576 slots, two a token
    assert plan.apply(PolicyConfig("tiny")) == PolicyConfig(
        "tiny", gradient_checkpointing="off", rollout_weights="merged"
    )


def test_a_model_without_a_shape_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(UserError, match="its config cannot be read") as caught:
        model_shape(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unreadable_config_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    with pytest.raises(UserError, match="its config cannot be read") as caught:
        model_shape(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_tiny_policy_is_counted_as_it_is():
    config = AutoConfig.from_pretrained(EMBEDDED["tiny"])
    assert shape_of(config) == model_shape("tiny")[0]
    assert shape_of(config).layers == 4
