"""The engine on a vLLM server, on a stand-in for it: what it is asked, and every way in which it fails ends with one line."""

from __future__ import annotations

import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rl_lightning.memory import Device, MemoryLimits, make_plan
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine, Sampling, VLLMServer, draw_uniforms, vllm_base, vllm_http, vllm_weights
from rl_lightning.rollout.vllm_weights import shared_model
from rl_lightning.types import UserError
from tests.conftest import shake
from tests.extension_points.training import data, fit, module
from tests.rollout.fake_vllm_server import FakeServer

SAMPLING = Sampling(2, 6)
COMPLETIONS = "/v1/completions"


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(vllm_http, "_AGAIN_SECONDS", 0.01)


@pytest.fixture
def unchecked(monkeypatch):
    """Without the comparison at the start, where something else is tried."""
    monkeypatch.setattr(vllm_base, "check_engine", lambda *args: None)


@pytest.fixture
def server(policy, tmp_path):
    server = FakeServer(shared_model(policy, tmp_path))
    yield server
    server.end()


@pytest.fixture
def engine(policy, server, tmp_path):
    engine = VLLMServer(server.url, str(tmp_path))
    engine.start(policy)
    yield engine
    engine.close()


def sample(engine, batch, sampling=SAMPLING, on_finished=None):
    rows = len(batch) * sampling.num_generations
    draws = draw_uniforms(torch.Generator().manual_seed(0), rows, sampling.max_new_tokens)
    return engine.generate(batch, sampling, draws, on_finished)


def refused(attempt) -> str:
    """The one line with which it ends."""
    with pytest.raises(UserError) as error:
        attempt()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_a_server_the_model_is_written_and_the_line_has_the_command(policy, tmp_path):
    engine, step = VLLMServer("http://127.0.0.1:9", str(tmp_path / "shared")), SAMPLING.step_shape(4, 100)
    engine.start(policy, make_plan(policy.config, step, "auto", "auto", Device("", "cpu", 8e9), engine))
    line = refused(engine.sync_weights)
    (model,) = (tmp_path / "shared").iterdir()
    assert re.sub("no connection: .*?;", "no connection;", line) == (
        "model.engine: vLLM at http://127.0.0.1:9 cannot be used: no connection; start the server "
        f"by: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True python -m vllm.entrypoints.openai.api_server --model {model} "
        "--max-model-len 106 --dtype float32 --port 9 --skip-tokenizer-init --enable-lora --max-loras 1 --max-lora-rank 16 "
        "--logprobs-mode processed_logprobs"
    )
    written = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    assert written.keys() == {"config.json", "model.safetensors"}
    refused(engine.sync_weights)
    assert written == {path.name: path.stat().st_mtime_ns for path in model.iterdir()}  # once


def test_the_name_of_the_written_model_is_of_its_weights_and_not_of_the_adapters(policy, tmp_path):
    name = shared_model(policy, tmp_path).name
    shake(other := Policy(policy.config, torch.device("cpu")))
    assert shared_model(other, tmp_path).name == name
    with torch.no_grad():
        other.base.get_input_embeddings().weight[0, 0] += 1
    assert shared_model(other, tmp_path).name != name
    assert len(list(tmp_path.iterdir())) == 2


def test_two_ranks_may_write_the_model_at_once(policy, tmp_path, monkeypatch):
    """The second one keeps what the first has written meanwhile."""
    first = shared_model(policy, tmp_path / "first")

    def while_another_is_faster(policy, merged, directory):
        shutil.copytree(first, tmp_path / first.name)
        directory.joinpath("config.json").write_text("the second")

    monkeypatch.setattr(vllm_weights, "write_model", while_another_is_faster)
    final = shared_model(policy, tmp_path)
    assert final.joinpath("config.json").read_bytes() == first.joinpath("config.json").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"first", first.name}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"version": "0.9.1"}, "vLLM 0.9.1 at http://.* cannot be used: it is too old"),
        ({"root": "/models/tiny"}, "it serves tiny, and tiny-[0-9a-f]{12} is wanted; start the server by: VLLM_ALLOW"),
        ({"tokens": 105}, "its --max-model-len is 105, and sequences have up to 106 tokens; start the server by: "),
        ({"faults": {"html"}}, "HTTP 404: <html> <title>404</title> </html>; start the server by: "),
        ({"faults": {"no_lora_updates"}}, "not take an adapter from .*: HTTP 404: Not Found; .*LORA_UPDATING=True"),
        ({"faults": {"blind"}}, "not take an adapter from .*: HTTP 404: Loading lora .*; it must see that directory"),
        ({"faults": {"raw_logprobs"}}, "does not sample from Qwen2ForCausalLM as it is.*logprobs-mode processed_logp"),
        ({"faults": {"old_adapter"}}, "does not follow a change of Qwen2ForCausalLM's weights"),
    ],
)
def test_a_server_that_is_not_the_one_wanted_is_refused_at_the_start(policy, server, engine, change, line):
    vars(server).update(change)
    step = SAMPLING.step_shape(4, 100)
    engine.start(policy, make_plan(policy.config, step, "auto", "auto", Device("", "cpu", 8e9), engine))
    assert re.search(line, refused(engine.sync_weights))


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("raises", "HTTP 500: EngineCore encountered an issue. See stack trace (above) for the root cause."),
        ("dies", "the connection is lost: Remote end closed connection without response; start the server again"),
        ("hangs", "after 0.3 seconds; start the server again, or raise model.engine.rollout_seconds"),
        ("nan", "tokens a log-prob that is not finite"),
        ("minus_infinity", "tokens a log-prob that is not finite"),
        ("cut", "a row ended with 'length' after 1 of 6 tokens"),
    ],
)
def test_a_rollout_that_fails_ends_with_a_line(server, engine, batch, fault, line, unchecked):
    engine.sync_weights()
    server.faults.add(fault)
    if fault == "hangs":
        engine._running.seconds = 0.3
    assert line in refused(lambda: sample(engine, batch))


def test_a_server_that_goes_away_is_a_line_and_what_was_loaded_is_a_warning(server, engine, batch, caplog, unchecked):
    engine.sync_weights()
    server.end()
    line = refused(lambda: sample(engine, batch))
    assert re.search("fails in a rollout: no connection: .*resume from the last checkpoint", line)
    engine.close()
    assert "does not let go of the last adapter: no connection" in caplog.text


def test_a_connection_that_is_lost_once_changes_no_completion(server, engine, batch, unchecked):
    engine.sync_weights()
    expected = sample(engine, batch)
    server.faults.add("resets_once")
    assert sample(engine, batch).texts == expected.texts
    assert not server.faults


def test_each_step_has_an_adapter_of_its_own_and_the_older_ones_are_gone(policy, server, engine, tmp_path, unchecked):
    for _ in range(3):
        engine.sync_weights()
    loaded = server.bodies("/v1/load_lora_adapter")
    assert len({body["lora_name"] for body in loaded}) == len({body["lora_path"] for body in loaded}) == 3
    (path,) = server.adapters.values()
    assert [str(each) for each in tmp_path.glob("adapter_*")] == [path] == [loaded[-1]["lora_path"]]
    found = load_file(Path(path, "adapter_model.safetensors"))
    assert sorted(map(tuple, (t.shape for t in found.values()))) == sorted(
        map(tuple, (p.shape for p in policy.trained_parameters()))
    )
    engine.close()
    assert not server.adapters
    assert not list(tmp_path.glob("adapter_*"))


def test_what_a_row_is_asked_for(policy, server, engine, batch, unchecked):
    engine.sync_weights()
    sampling = replace(SAMPLING, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1)
    sample(engine, batch, sampling)
    asked = sorted(server.bodies(COMPLETIONS), key=lambda body: body["seed"])
    draws = draw_uniforms(torch.Generator().manual_seed(0), 2 * len(batch), 6)
    assert [body["seed"] for body in asked] == sorted(int(each * 2**53) for each in draws[:, 0].tolist())
    (name,) = server.adapters
    for body in asked:
        assert body.pop("prompt") in [
            row[:n].tolist() for row, n in zip(batch.prompt_ids, batch.prompt_lengths, strict=True)
        ]
        del body["seed"]
        assert body == {
            "model": name,
            "max_tokens": 6,
            "stop_token_ids": policy.eos_token_ids.tolist(),
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 5,
            "min_p": 0.1,
            "logprobs": 0,
            "ignore_eos": True,
            "repetition_penalty": 1.0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }


def test_a_row_is_handed_over_while_others_are_awaited(server, engine, batch, unchecked):
    engine.sync_weights()
    server.held.clear()  # all but the first one that arrives
    told = []

    def on_finished(row: int, text: str) -> None:
        told.append(row)
        server.held.set()

    (released := threading.Timer(20, server.held.set)).start()
    sample(engine, batch, on_finished=on_finished)
    assert not released.finished.is_set()
    released.cancel()
    assert sorted(told) == list(range(2 * len(batch)))


def test_a_hand_over_that_fails_leaves_no_request_behind(server, engine, batch, unchecked):
    engine.sync_weights()
    server.held.clear()
    (released := threading.Timer(20, server.held.set)).start()

    def fails(row: int, text: str) -> None:
        raise RuntimeError("scoring has failed")

    with pytest.raises(RuntimeError, match="scoring has failed"):
        sample(engine, batch, on_finished=fails)
    assert not server.held.is_set()  # nobody waited for the others
    released.cancel()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("vllm_server")]
    server.held.set()
    assert len(sample(engine, batch).texts) == 2 * len(batch)


def test_not_more_rows_are_sent_at_once_than_a_setting_says(policy, server, engine, batch, unchecked):
    """The limit of this device's memory is not the server's."""
    engine.start(policy, None, MemoryLimits.of(1000, 1))
    engine.sync_weights()
    server.held.clear()

    def on_finished(row: int, text: str) -> None:
        with server.counting:
            assert server.counting.wait_for(lambda: server.held.is_set() or server.at_once == 3, 20)
        server.held.set()

    sample(engine, batch, replace(SAMPLING, max_rollout_rows=3), on_finished)
    assert server.most_at_once == 3


def test_two_engines_share_a_server(policy, server, batch, tmp_path, unchecked):
    engines = [VLLMServer(server.url, str(tmp_path)) for _ in range(2)]
    for engine in engines:
        engine.start(policy)
        engine.sync_weights()
    texts = [sample(engine, batch).texts for engine in engines]
    engines[0].close()
    assert texts == [sample(engines[1], batch).texts] * 2
    engines[1].close()


def test_the_key_of_the_environment_is_sent(policy, server, tmp_path, monkeypatch, unchecked):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    engine = VLLMServer(server.url, str(tmp_path))
    engine.start(policy)
    engine.sync_weights()
    assert set(server.keys) == {"Bearer secret"}
    engine.close()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port", "http://host/?a=b"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(UserError, match=r"model.engine.url: .* a URL such as http://127.0.0.1:8000"):
        VLLMServer(url)


def test_a_policy_without_adapters_is_refused(tmp_path):
    policy = Policy(PolicyConfig("tiny", quantization="none", lora_r=0), torch.device("cpu"))
    with pytest.raises(UserError, match="VLLMServer samples from a policy with adapters on one device"):
        VLLMServer(directory=str(tmp_path)).start(policy)


def test_nothing_is_planned_for_it():
    config, step = PolicyConfig("tiny"), SAMPLING.step_shape(4, 100)
    plans = [make_plan(config, step, "auto", "auto", Device("", "cpu", 8e9), e) for e in (LocalEngine(), VLLMServer())]
    assert plans[0].phases == plans[1].phases


def test_a_training_run_samples_by_the_server_and_evaluates_itself(tmp_path):
    policy = Policy(module().policy_config, torch.device("cpu"))
    server, mismatch = FakeServer(shared_model(policy, tmp_path / "shared")), []
    engine = VLLMServer(server.url, str(tmp_path / "shared"))
    trained, source = module(engine=engine, sampling=Sampling(4, 24), learning_rate=3e-3), data()
    original = trained.finish_step

    def finish_step(record, metrics):
        mismatch.append(metrics["policy/logprob_mismatch"])
        server.faults.add("old_adapter")  # from the second step on it would not follow any more
        original(record, metrics)

    trained.finish_step = finish_step
    fit(tmp_path / "run", trained, source, max_steps=3)
    assert mismatch[0] < 1e-4 < 3e-3 < mismatch[2]
    assert not list((tmp_path / "shared").glob("adapter_*"))
    server.end()
