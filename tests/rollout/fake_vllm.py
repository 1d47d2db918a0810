"""A stand-in for the package vllm, of which the engine is a plain transformers model: slow, right, and with faults on demand.

Like vLLM it keeps what it has computed of a prompt until `reset_prefix_cache`, and an adapter until another id is loaded.
"""

from __future__ import annotations

import copy
import sys
import time
from types import ModuleType, SimpleNamespace

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rl_lightning.rollout import Sampling, vllm_core, vllm_engine
from rl_lightning.rollout.sampling import token_probs


class Engine:
    """What `vllm.LLM.llm_engine` is, in the parts that are used.

    Attributes:
        raw: whether log-probs are of the model alone, before temperature and filters.
        faults: what goes wrong from now on: "nan", "raises", "hangs", "out_of_memory" (above 6 rows), "old_weights", "old_cache",
            "no_reset".
    """

    def __init__(self, settings: dict, faults: set[str]) -> None:
        self.settings, self.faults = settings, faults
        self.model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=settings["dtype"])
        self.base, self.lora, self.adapters = self.model, None, {}
        self.running, self.cache, self.raw = [], {}, False
        self.engine_core = SimpleNamespace(shutdown=lambda: None)

    def collective_rpc(self, method: str, kwargs: dict) -> None:
        assert method == "reload_weights"
        torch.manual_seed(99)  # vLLM touches the process's generator too
        weights = dict(kwargs["weights_iterator"])
        if "old_weights" not in self.faults:
            missing = self.model.load_state_dict(weights, strict=False)
            assert not missing.unexpected_keys
            assert missing.missing_keys in ([], ["lm_head.weight"])

    def add_lora(self, request) -> bool:
        if "old_weights" not in self.faults and request.id not in self.adapters:
            self.adapters[request.id] = PeftModel.from_pretrained(copy.deepcopy(self.base), request.path)
            self.model = self.adapters[request.id]
        return True

    def remove_lora(self, number: int) -> None:
        if "old_weights" not in self.faults:
            del self.adapters[number]

    def reset_prefix_cache(self) -> bool:
        if "old_cache" not in self.faults:
            self.cache.clear()
        return "no_reset" not in self.faults

    def add_request(self, number: str, prompt: dict, params, lora_request) -> None:
        assert number not in {row.number for row in self.running}
        seed = params.__dict__.pop("seed", None)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        row = SimpleNamespace(number=number, ids=prompt["prompt_token_ids"], params=params, generator=generator)
        row.new, row.logps = [], []
        self.running.append(row)

    def abort_request(self, numbers: list[str]) -> None:
        self.running = [row for row in self.running if row.number not in numbers]

    @torch.no_grad()
    def step(self) -> list:
        """One token for every row."""
        assert len(self.running) <= self.settings["max_num_seqs"]
        torch.rand(1)
        if "raises" in self.faults:
            raise RuntimeError("the engine core has died\nwith a long story")
        if "hangs" in self.faults:
            time.sleep(2)
            raise RuntimeError("nobody waits for this any more")
        if "out_of_memory" in self.faults and len(self.running) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for length in {len(row.ids + row.new) for row in self.running}:
            rows = [row for row in self.running if len(row.ids + row.new) == length]
            fresh = self.model(input_ids=torch.tensor([row.ids + row.new for row in rows])).logits[:, -1:].float()
            for row, logits in zip(rows, fresh, strict=True):
                self.choose(row, logits if row.new else self.cache.setdefault(tuple(row.ids), logits).clone())
        ended = [row for row in self.running if row.reason]
        self.running = [row for row in self.running if not row.reason]
        return [output(row) for row in ended]

    def choose(self, row, logits: torch.Tensor) -> None:
        params, of_the_model = row.params, logits.softmax(dim=-1)
        if row.generator is None:
            probs = logits.softmax(dim=-1)
            token = int(logits.argmax())
        else:
            sampling = Sampling(2, 1, params.temperature, params.top_p, params.top_k, params.min_p)
            probs = token_probs(logits, sampling)
            token = int(torch.multinomial(probs[0], 1, generator=row.generator))
        if self.raw:
            probs = of_the_model
        row.new.append(token)
        row.logps.append(
            {token: SimpleNamespace(logprob=float("nan") if "nan" in self.faults else float(probs[0, token].log()))}
        )
        row.reason = "length" if len(row.new) == params.max_tokens else None
        row.reason = "stop" if token in params.stop_token_ids else row.reason


def output(row) -> SimpleNamespace:
    only = SimpleNamespace(token_ids=row.new, logprobs=row.logps, finish_reason=row.reason)
    return SimpleNamespace(request_id=row.number, outputs=[only])


def install(monkeypatch, *faults: str) -> list[Engine]:
    """Put it in the place of the package vllm.

    Args:
        faults: what goes wrong from the start.

    Returns:
        every engine that has been started; more are appended.
    """
    started: list[Engine] = []

    def llm(**settings):
        torch.manual_seed(settings["seed"])
        torch.set_num_threads = None
        started.append(Engine(settings, set(faults)))
        return SimpleNamespace(llm_engine=started[-1])

    def lora_request(name, number, path):
        return SimpleNamespace(id=number, lora_int_id=number, path=path)

    parts = {
        "vllm": {"LLM": llm, "SamplingParams": SimpleNamespace},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY=2)},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lora_request},
        "vllm.distributed": {"parallel_state": SimpleNamespace(cleanup_dist_env_and_memory=lambda: None)},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    for module in (vllm_core, vllm_engine):
        monkeypatch.setattr(module, "installed_version", lambda: "0.32.0")
    return started
