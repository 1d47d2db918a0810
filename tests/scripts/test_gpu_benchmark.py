"""Every part of scripts/gpu_bench.py at toy size on a CPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gpu_benchmark import checkpoints, decoding, device, learning, peer, steps
from gpu_benchmark.jobs import Job, all_jobs
from transformers import Qwen2ForCausalLM

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout.policy_decoder import decoder_of
from rl_lightning.training import metrics
from rl_lightning.types import Rollout, UserError
from tests.scripts.ticking_clock import tick

CPU = torch.device("cpu")


class Findings(dict):
    """What a part has reported."""

    def __call__(self, **found):
        self.update(json.loads(json.dumps(found)))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> dict[str, Job]:
    """The toy's jobs by part and name, its checkpoint written."""
    found = {f"{job.part} {job.name}".strip(): job for job in all_jobs("cpu", True, tmp_path_factory.mktemp("toy"))}
    written = Findings()
    checkpoints.write(found["checkpoints"].settings, written)
    assert written["toy"]["bytes"] == sum(
        2 * p.numel() for p in Qwen2ForCausalLM(checkpoints.config_of("toy")).parameters()
    )
    return found


def do(function, job: Job, **changes) -> Findings:
    found = Findings()
    function(job.settings | {"context_bytes": 0, "bandwidth": 1e9} | changes, found)
    return found


@pytest.fixture
def ticking(monkeypatch):
    """Every reading of the clock is a second later than the one before, so that no time depends on the machine."""
    tick(monkeypatch, device, metrics)


@pytest.mark.parametrize(
    ("shape", "weights"),
    [("0.5B", 494_032_768), ("1.5B", 1_543_714_304), ("3B", 3_085_938_688), ("7B", 7_615_616_512)],
)
def test_shapes_are_those_of_qwen(shape, weights):
    """As the models' pages on the hub say."""
    with torch.device("meta"):
        model = Qwen2ForCausalLM(checkpoints.config_of(shape))
    assert sum(p.numel() for p in model.parameters()) == weights


def test_a_checkpoint_of_several_files_loads_in_4_bits_and_a_full_disk_is_said(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_SHARD_BYTES", 50_000)
    shapes = {"toy": str(tmp_path / "toy")}
    checkpoints.write({"device": "cpu", "shapes": shapes}, Findings())
    assert len(list((tmp_path / "toy").glob("*.safetensors"))) > 2
    one, many = (
        Policy(PolicyConfig(path), CPU).state_dict() for path in (jobs["agreement"].settings["path"], shapes["toy"])
    )
    assert all(torch.equal(one[name], many[name]) for name in one if "absmax" in name or "embed" in name)
    assert any("absmax" in name for name in one)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="0.0 GB free"):
        checkpoints.write({"device": "cpu", "shapes": {"toy": str(tmp_path / "other")}}, Findings())


def test_a_head_of_its_own_is_written_and_stays_whole(tmp_path, monkeypatch):
    """As the 7B has one."""
    monkeypatch.setitem(checkpoints.SHAPES, "7B", checkpoints.SHAPES["toy"])
    checkpoints.write({"device": "cpu", "shapes": {"7B": str(tmp_path)}}, Findings())
    model = Policy(PolicyConfig(str(tmp_path)), CPU).model
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head.shape == embedding.shape == (1000, 64)
    assert head.dtype == torch.float32
    assert not torch.equal(head, embedding)
    assert 0.01 < head.std() < 0.03


def test_the_devices_rates_are_work_over_seconds(jobs, ticking):
    found = do(device.measure, jobs["device"])
    seconds = 0.1  # ten rounds between two readings
    assert found["matmul_tflops"] == round(2 * 64**3 / seconds / 1e12, 6) > 0
    assert found["bandwidth_bytes_per_second"] == 2 * 2**16 / seconds
    assert found["versions"]["torch"] == torch.__version__


def test_steps_report_time_and_tokens(jobs, ticking):
    found = do(steps.train, jobs["steps toy on 4 GB"])
    assert found["fits"]
    assert found["weights"] == "Linear4bit"
    assert found["rollouts_on"] == "RolloutNetwork"
    predicted = found["predicted"]
    assert predicted["fits"]
    assert predicted["device_bytes"] == 4e9
    assert predicted["settings"]["token_budget"] == found["token_budget"] == 256
    for phase, parts in predicted["parts"].items():
        total = sum(size for part, size in parts.items() if part != "context")
        assert predicted["tensors"][phase] == pytest.approx(total, abs=10)
    assert len(found["steps"]) == 2
    assert set(found["peaks"]) == {"load", "rollout", "update"}
    for step in found["steps"]:
        assert step["sampled_tokens"] == step["policy/trained_tokens"] > 4
        assert step["time/sample"] == step["time/score"] == step["time/train"] == 1
        assert step["time/sampled_tokens_per_second"] == step["sampled_tokens"]
        assert step["seconds"] >= step["time/sample"] + step["time/train"]
        assert step["policy/grad_norm"] > 0  # every group has reward variance


def test_steps_that_run_out_of_memory_show_what_fitted_or_that_nothing_did(jobs, monkeypatch):
    """In place of a GPU's cap: each token of a micro-batch takes one unit of memory."""
    log_probs, limit = Policy.log_probs, 40

    def capped(self, batch, *args):
        if len(batch.input_ids) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_probs(self, batch, *args)

    monkeypatch.setattr(Policy, "log_probs", capped)
    job = jobs["steps toy on 4 GB"]
    job = replace(job, settings=job.settings | {"policy": {"self_test": False}})
    found = do(steps.train, job)
    assert found["fits"]
    assert found["token_budget"] < job.settings["model"]["token_budget"]
    limit = 5
    failed = Findings()
    with pytest.raises(UserError, match="out of memory"):
        steps.train(job.settings | {"context_bytes": 0}, failed)
    assert not failed["fits"]


def test_decoding_is_compared_with_the_bytes_that_it_reads(jobs, ticking):
    found = do(decoding.measure, jobs["decoding toy"])
    assert set(found) == {"4-bit, chosen", "4-bit, fused", "4-bit, dequantised", "merged"}
    shape = checkpoints.SHAPES["toy"]
    width, mlp, keys = shape["width"], shape["mlp"], shape["kv_heads"] * shape["width"] // shape["heads"]
    linear = shape["layers"] * (2 * width * width + 2 * width * keys + 3 * width * mlp)
    assert found["merged"]["graphs"]["weight_bytes_a_step"] == 4 * (linear + width * shape["vocabulary"])
    policy = Policy(PolicyConfig(jobs["decoding toy"].settings["path"]), CPU)
    packed = decoding.weight_bytes(decoder_of(policy, merged=False))
    assert found["4-bit, chosen"]["graphs"]["weight_bytes_a_step"] == packed < 4 * linear + 4 * width * 1000
    for kind in found.values():
        for mode in kind.values():
            assert 0 < mode["share_of_roofline_all_in"] < 1
            assert mode["tokens"] > 4
            least = mode["share_of_roofline"] * mode["step_ms"] / 1000
            assert least == pytest.approx(mode["weight_bytes_a_step"] / 1e9, rel=0.01)
            assert mode["settling_steps"] == mode["settling_seconds"] >= 2
            assert mode["prefill_seconds"] == 1
            settled = 1000 * (mode["seconds"] - 1 - mode["settling_seconds"]) / mode["step_ms"]
            all_in = mode["weight_bytes_a_step"] / 1e9 * (settled + mode["settling_steps"]) / mode["seconds"]
            assert mode["share_of_roofline_all_in"] == pytest.approx(all_in, rel=0.01)
            assert mode["tokens_per_second"] == pytest.approx(mode["tokens"] / mode["seconds"], abs=0.05)
    assert set(found["merged"]) == {"graphs", "eager"}


def test_shares_of_the_roofline_by_hand():
    """Half a second for prompts, two steps that set up for 0.3 s each, and eight that take 0.1 s each."""
    times = decoding.DecodeTimes(total=1.9, prefill=0.5, settling=[0.3, 0.3], settled_steps=8)
    assert times.step_seconds == pytest.approx(0.1)
    settled, all_in = times.shares_of_roofline(weight_bytes=50_000, bandwidth=1e6)  # 0.05 s per step at best
    assert settled == pytest.approx(0.5)
    assert all_in == pytest.approx(10 * 0.05 / 1.9)
    assert times.shares_of_roofline(None, 1e6) == times.shares_of_roofline(50_000, None) == (None, None)


def test_steps_at_the_sizes_of_graphs_agree_with_eager_steps(jobs):
    found = do(decoding.agree, jobs["agreement"])
    assert set(found) == {"unmerged", "merged"}
    for weights in found.values():
        assert weights["graphs_against_the_same_steps"] == {"tokens": 1.0, "rows": 1.0}
        assert weights["graphs_against_steps_of_the_exact_size"] == {"tokens": 1.0, "rows": 1.0}


def test_agreement_ends_at_the_first_difference():
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    one = Rollout(ids[:, :1], ids[:, 0], ids, mask, mask.float(), mask[:, -1], ("", ""))
    other = replace(one, completion_ids=torch.tensor([[1, 9, 3, 4], [5, 6, 0, 0]]))
    assert decoding.agreement(one, other) == {"tokens": 0.5, "rows": 0.5}


def test_the_first_two_steps_of_a_size_are_timed_apart():
    taken = []
    launch = decoding.timed_graphs(CPU, graphs=True)
    running = launch(lambda slots, span: taken.append((slots, span)), 4, 16)
    for span in (3, 3, 3, 3, 9):
        running.run(4, span)
    assert (launch.settled, len(launch.settling), len(taken)) == (2, 3, 5)


def test_4_bit_kernels_are_forced_and_set_free_again(monkeypatch):
    """The module of these kernels loads on a GPU only; that it has the name that is replaced is read from its text."""
    source = importlib.util.find_spec("bitsandbytes.backends.cuda")
    text = (Path(source.submodule_search_locations[0]) / "ops.py").read_text()
    assert "use_custom = _gemm_4bit_use_custom_fn(A.device.index, A.dtype, M, N, K)" in text
    ops = SimpleNamespace(_gemm_4bit_use_custom_fn=None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.backends.cuda.ops", ops)
    for kernel, fused in (("fused", True), ("dequantised", False)):
        with decoding.products(kernel, torch.device("cuda", 0)):
            assert ops._gemm_4bit_use_custom_fn(0, torch.bfloat16, 64, 1536, 1536) is fused
    assert ops._gemm_4bit_use_custom_fn is None
    with decoding.products("chosen", torch.device("cuda", 0)):
        assert ops._gemm_4bit_use_custom_fn is None


@pytest.mark.trl
def test_the_peer_does_the_same_work_or_is_said_to_be_missing(jobs, monkeypatch):
    if importlib.util.find_spec("trl") is not None:
        found = do(peer.train, jobs["peer trl"])
        ours = do(steps.train, jobs["peer ours"])
        assert [s["sampled_tokens"] for s in found["steps"]] == [s["sampled_tokens"] for s in ours["steps"]]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "trl is not installed" in do(peer.train, jobs["peer trl"])["skipped"]


def test_learning_ends_at_its_target_and_reports_a_curve(jobs, ticking):
    found = do(learning.train, jobs["learning"])
    assert [point["step"] for point in found["curve"]] == [0, 2]  # the quickstart makes two updates per rollout
    assert found["reached"]
    assert found["steps_to_target"] == 2
    assert found["curve"][1]["seconds"] >= found["time/sample"] + found["time/train"]
    never = do(learning.train, jobs["learning"], target=1.1)
    assert [point["step"] for point in never["curve"]] == [0, 2, 3]
    assert not never["reached"]
