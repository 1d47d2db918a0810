"""Every part of scripts/gpu_bench.py at toy size on a CPU, and a runner that outlives its jobs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2ForCausalLM

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.types import Rollout, UserError
from tests.conftest import ROOT

sys.path.append(str(ROOT / "scripts"))

import gpu_bench
from gpu_benchmark import checkpoints, decoding, device, learning, peer, steps
from gpu_benchmark.jobs import PARTS, Job, all_jobs

CPU = torch.device("cpu")


class Heard(dict):
    """What a part has reported."""

    def __call__(self, **found):
        self.update(json.loads(json.dumps(found)))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> dict[str, Job]:
    """The toy's jobs by part and name, its checkpoint written."""
    found = {f"{job.part} {job.name}".strip(): job for job in all_jobs("cpu", True, tmp_path_factory.mktemp("toy"))}
    heard = Heard()
    checkpoints.write(found["checkpoints"].settings, heard)
    assert heard["toy"]["bytes"] == sum(
        2 * p.numel() for p in Qwen2ForCausalLM(checkpoints.config_of("toy")).parameters()
    )
    return found


def do(function, job: Job, **changes) -> Heard:
    heard = Heard()
    function(job.settings | {"context_bytes": 0, "bandwidth": 1e9} | changes, heard)
    return heard


@pytest.mark.parametrize(
    ("shape", "weights"),
    [("0.5B", 494_032_768), ("1.5B", 1_543_714_304), ("3B", 3_085_938_688), ("7B", 7_615_616_512)],
)
def test_shapes_are_those_of_qwen(shape, weights):
    """As counted by the models' cards on the hub."""
    with torch.device("meta"):
        model = Qwen2ForCausalLM(checkpoints.config_of(shape))
    assert sum(p.numel() for p in model.parameters()) == weights


def test_a_checkpoint_of_several_files_loads_in_4_bits_and_a_full_disk_is_said(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_SHARD_BYTES", 50_000)
    shapes = {"toy": str(tmp_path / "toy")}
    checkpoints.write({"device": "cpu", "shapes": shapes}, Heard())
    assert len(list((tmp_path / "toy").glob("*.safetensors"))) > 2
    one, many = (
        Policy(PolicyConfig(path), CPU).state_dict() for path in (jobs["agreement"].settings["path"], shapes["toy"])
    )
    assert all(torch.equal(one[name], many[name]) for name in one if "absmax" in name or "embed" in name)
    assert any("absmax" in name for name in one)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="0.0 GB free"):
        checkpoints.write({"device": "cpu", "shapes": {"toy": str(tmp_path / "other")}}, Heard())


def test_a_head_of_its_own_is_written_and_stays_whole(tmp_path, monkeypatch):
    """As the 7B has one."""
    monkeypatch.setitem(checkpoints.SHAPES, "7B", checkpoints.SHAPES["toy"])
    checkpoints.write({"device": "cpu", "shapes": {"7B": str(tmp_path)}}, Heard())
    model = Policy(PolicyConfig(str(tmp_path)), CPU).model
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head.shape == embedding.shape == (1000, 64)
    assert head.dtype == torch.float32
    assert not torch.equal(head, embedding)
    assert 0.01 < head.std() < 0.03


def test_the_device_is_measured(jobs):
    found = do(device.measure, jobs["device"])
    assert found["matmul_tflops"] > 0
    assert found["bandwidth_bytes_per_second"] > 0
    assert found["versions"]["torch"] == torch.__version__


def test_steps_report_time_and_tokens(jobs):
    found = do(steps.train, jobs["steps toy on 4 GB"])
    assert found["fits"]
    assert found["weights"] == "Linear4bit"
    assert found["rollouts_on"] == "RolloutNetwork"
    predicted = found["predicted"]
    assert predicted["fits"]
    assert predicted["card_bytes"] == 4e9
    assert predicted["settings"]["token_budget"] == found["token_budget"] == 256
    for phase, parts in predicted["parts"].items():
        total = sum(size for part, size in parts.items() if part != "context")
        assert predicted["tensors"][phase] == pytest.approx(total, abs=10)
    assert len(found["steps"]) == 2
    assert set(found["peaks"]) == {"load", "rollout", "update"}
    for step in found["steps"]:
        assert step["sampled_tokens"] == step["policy/trained_tokens"] > 4
        assert step["seconds"] >= step["time/sample"] + step["time/train"]
        assert step["policy/grad_norm"] > 0  # every group has something to teach


def test_steps_that_run_out_of_memory_show_what_fitted_or_that_nothing_did(jobs, monkeypatch):
    """A twin of the cap: each token of a micro-batch takes a unit of it."""
    log_probs, limit = Policy.log_probs, 40

    def capped(self, batch, *args):
        if len(batch.input_ids) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_probs(self, batch, *args)

    monkeypatch.setattr(Policy, "log_probs", capped)
    found = do(steps.train, jobs["steps toy on 4 GB"])
    assert found["fits"]
    assert found["token_budget"] < jobs["steps toy on 4 GB"].settings["model"]["token_budget"]
    limit = 5
    heard = Heard()
    with pytest.raises(UserError, match="out of memory"):
        steps.train(jobs["steps toy on 4 GB"].settings | {"context_bytes": 0}, heard)
    assert not heard["fits"]


def test_decoding_is_set_against_the_bytes_that_it_reads(jobs):
    found = do(decoding.measure, jobs["decoding toy"])
    assert set(found) == {"4-bit, chosen", "4-bit, fused", "4-bit, dequantised", "merged"}
    shape = checkpoints.SHAPES["toy"]
    width, mlp, keys = shape["width"], shape["mlp"], shape["kv_heads"] * shape["width"] // shape["heads"]
    linear = shape["layers"] * (2 * width * width + 2 * width * keys + 3 * width * mlp)
    assert found["merged"]["graphs"]["weight_bytes_a_step"] == 4 * (linear + width * shape["vocabulary"])
    packed = decoding.weight_bytes(
        Policy(PolicyConfig(jobs["decoding toy"].settings["path"], rollout_weights="trained"), CPU).rollout_network
    )
    assert found["4-bit, chosen"]["graphs"]["weight_bytes_a_step"] == packed < 4 * linear + 4 * width * 1000
    for kind in found.values():
        for mode in kind.values():
            assert 0 < mode["share_of_roofline_all_in"] < 1
            assert mode["tokens"] > 4
            least = mode["share_of_roofline"] * mode["step_ms"] / 1000
            assert least == pytest.approx(mode["weight_bytes_a_step"] / 1e9, rel=0.2)
            assert mode["settling_steps"] >= 2
    assert set(found["merged"]) == {"graphs", "eager"}


def test_graphs_twin_agrees_with_eager_steps(jobs):
    found = do(decoding.agree, jobs["agreement"])
    assert set(found) == {"trained", "merged"}
    for weights in found.values():
        assert weights["graphs_against_the_same_steps"] == {"tokens": 1.0, "rows": 1.0}
        assert weights["graphs_against_steps_of_the_very_size"] == {"tokens": 1.0, "rows": 1.0}


def test_agreement_ends_at_the_first_difference():
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    one = Rollout(ids[:, :1], ids[:, 0], ids, mask, mask.float(), mask[:, -1], ("", ""))
    other = replace(one, completion_ids=torch.tensor([[1, 9, 3, 4], [5, 6, 0, 0]]))
    assert decoding._agreement(one, other) == {"tokens": 0.5, "rows": 0.5}


def test_the_first_two_steps_of_a_size_are_timed_apart():
    taken = []
    launch = decoding.watched(CPU, graphs=True)
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


def test_the_peer_does_the_same_work_or_is_said_to_be_missing(jobs, monkeypatch):
    if importlib.util.find_spec("trl") is not None:
        found = do(peer.train, jobs["peer trl"])
        ours = do(steps.train, jobs["peer ours"])
        assert [s["sampled_tokens"] for s in found["steps"]] == [s["sampled_tokens"] for s in ours["steps"]]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "trl is not installed" in do(peer.train, jobs["peer trl"])["skipped"]


def test_learning_ends_at_its_target_and_draws_a_curve(jobs):
    found = do(learning.train, jobs["learning"])
    assert [point["step"] for point in found["curve"]] == [0, 2]  # the quickstart makes two updates a rollout
    assert found["reached"]
    assert found["steps_to_target"] == 2
    assert found["curve"][1]["seconds"] >= found["time/sample"] + found["time/train"]
    never = do(learning.train, jobs["learning"], target=1.1)
    assert [point["step"] for point in never["curve"]] == [0, 2, 3]
    assert not never["reached"]


def test_a_job_that_fails_leaves_the_others_and_the_file(tmp_path, monkeypatch):
    """In processes of their own, as on a GPU."""
    out = tmp_path / "out.json"
    written = []
    monkeypatch.setattr(gpu_bench, "_write", lambda path, results: written.append(json.dumps(results)))
    every = {job.part: job for job in all_jobs("cpu", True, tmp_path)}
    broken = Job("steps", "broken", ("device", "measure"), {"device": "no such device"})
    done = gpu_bench.run([every["device"], broken, every["checkpoints"], every["agreement"]], out, 600, tmp_path, {})
    assert len(written) == 4
    assert "matmul_tflops" in json.loads(written[0])["parts"]["device"]
    failed = done["parts"]["steps"]["broken"]
    assert failed["error"].startswith("RuntimeError: ")
    assert any("Traceback" in line for line in failed["log"])
    assert done["parts"]["checkpoints"]["toy"]["bytes"]
    assert done["parts"]["agreement"]["merged"]["graphs_against_the_same_steps"]["tokens"] == 1
    assert done["summary"]["fits"] == {"broken": False}
    assert not done["left_out"]


def test_time_that_is_up_ends_a_job_and_names_the_others(tmp_path):
    out, settings = tmp_path / "out.json", {"device": "cpu", "side": 20_000, "copy_bytes": 1}
    endless = Job("device", "", ("device", "measure"), settings)
    done = gpu_bench.run([endless, Job("learning", "", ("learning", "train"), {}, 30)], out, 1.5, tmp_path, {})
    assert done["parts"]["device"]["error"].startswith("stopped after")
    assert "it needs about 30" in done["left_out"]["learning"]
    assert json.loads(out.read_text())["left_out"] == done["left_out"]


def test_a_job_that_hangs_is_ended_for_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bench, "LONGEST", 1)
    job = Job("device", "", ("device", "measure"), {"device": "cpu", "side": 20_000, "copy_bytes": 1})
    done = gpu_bench.run([job, replace(job, name="again")], tmp_path / "out.json", 60, tmp_path, {})
    assert "stopped after 1 s" in json.dumps(done["parts"]["device"])
    assert done["seconds"] < 20


def test_a_worker_that_dies_is_said_to(tmp_path):
    job = Job("device", "", ("device", "measure"), {"device": "cpu"})
    worker = gpu_bench.Worker(job, tmp_path, 0)
    os.kill(worker.process.pid, signal.SIGSEGV)
    assert worker.run(job, {}, 60)["error"] == "ended by SIGSEGV"


def test_every_part_has_a_job_of_both_sizes_and_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    for toy in (True, False):
        found = all_jobs("cuda", toy, tmp_path)
        assert {job.part for job in found} == set(PARTS)
        names = [(job.part, job.name) for job in found]
        assert len(set(names)) == len(names)
        for job in found:
            part = importlib.import_module(f"gpu_benchmark.{job.calls[0]}")
            assert callable(getattr(part, job.calls[1]))
    (tmp_path / "there.json").touch()
    for words in (["--out", str(tmp_path / "there.json")], ["--out", "new.json", "--device", "cpu"]):
        monkeypatch.setattr("sys.argv", ["gpu_bench.py", *words])
        with pytest.raises(SystemExit) as ended:
            gpu_bench.main()
        assert ended.value.code == 2


def test_the_summary_compares_last_steps_and_plan_with_peak():
    def side(seconds: float) -> dict:
        return {"steps": [{"seconds": 99.0}, {"seconds": seconds}]}

    parts = {"peer": {"ours": side(2.0), "trl": side(11.0)}, "learning": {"seconds_to_target": 40.0}}
    parts["steps"] = {
        "one": {
            "fits": True,
            "predicted": {"tensors": {"load": 5, "rollout": 30}},
            "peaks": {"load": {"allocated": None}, "rollout": {"allocated": 20}},
        },
        "other": {"error": "it did not even load"},
    }
    found = gpu_bench.summary(parts)
    assert found["fits"] == {"one": True, "other": False}
    assert found["predicted_by_measured"] == {"one": {"rollout": 1.5}}
    assert found["times_as_fast_as_trl"] == 5.5
    assert found["seconds_to_target"] == 40.0
    assert gpu_bench.summary({})["times_as_fast_as_trl"] is None


def test_checkpoints_go_where_they_are_told_and_are_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bench, "run", lambda jobs, out, seconds, directory, about: {"summary": str(directory)})
    monkeypatch.setattr("sys.argv", ["gpu_bench.py", "--out", str(tmp_path / "o.json"), "--workdir", str(tmp_path)])
    assert gpu_bench.main() == 0
    assert list(Path(tmp_path).iterdir()) == []
