"""Several cards on one CPU: every tensor is of one card, and what only works on one card raises an error where cards mix.

A tensor's card is that of its storage; `tensor.device` says it: `cpu` for the first card, `cpu:1` for the second, and so on. An
operation takes tensors of one card, and numbers (tensors of no dimension) of the host, as CUDA does; its result is of that card.
Only copies go from card to card, and are counted. The host's tensors count as the first card's. The computation is that of one CPU,
so what is computed on several cards must be equal to the last bit.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

DEVICE = torch.Tensor.device.__get__


def card(number: int) -> torch.device:
    return torch.device("cpu", number) if number else torch.device("cpu")


class MixedCards(AssertionError):
    """An operation on tensors of several cards; no user of RuntimeError may take it for something else."""


class Cards:
    """Which card each storage is on, and what was copied from card to card.

    Attributes:
        copies: number of copies by (from, to, shape).
    """

    def __init__(self) -> None:
        self._of: dict[int, tuple[StorageWeakRef, int]] = {}
        self.copies: Counter[tuple[int, int, tuple[int, ...]]] = Counter()

    def of(self, tensor: Tensor) -> int:
        """A tensor's card."""
        found = self._of.get(tensor.untyped_storage()._cdata)
        return found[1] if found else 0

    def is_of_host(self, tensor: Tensor) -> bool:
        """Whether the tensor was made without saying where, of others like it."""
        return tensor.untyped_storage()._cdata not in self._of

    def put(self, tensor: Tensor, number: int) -> None:
        storage = tensor.untyped_storage()
        self._of[storage._cdata] = StorageWeakRef(storage), number  # a weak reference keeps the address its own
        if len(self._of) > 100_000:
            self._of = {key: each for key, each in self._of.items() if not each[0].expired()}

    def put_module(self, module: nn.Module, number: int) -> None:
        """Put all tensors of a module on a card, 4-bit weights and their scales included."""
        for each in module.modules():
            for tensor in [*each._parameters.values(), *each._buffers.values()]:
                state = getattr(tensor, "quant_state", None)
                inner = [] if state is None else [*vars(state).values(), *vars(state.state2).values()]
                for found in (tensor, *inner):
                    if isinstance(found, Tensor):
                        self.put(found, number)


class _Transfer(torch.autograd.Function):
    """A copy to another card, whose gradient goes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cards: Cards, target: int, dtype: torch.dtype) -> Tensor:
        ctx.cards, ctx.source, ctx.dtype = cards, cards.of(x), x.dtype
        return _copied(cards, x, target, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _copied(ctx.cards, grad, ctx.source, ctx.dtype), None, None, None


def _copied(cards: Cards, x: Tensor, target: int, dtype: torch.dtype) -> Tensor:
    cards.copies[cards.of(x), target, tuple(x.shape)] += 1
    with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
        out = x.to(dtype, copy=True)
    cards.put(out, target)
    return out


class _Devices(TorchFunctionMode):
    """Answer `tensor.device`, and copy at `tensor.to`."""

    def __init__(self, cards: Cards) -> None:
        super().__init__()
        self.cards = cards

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == DEVICE:
            real = func(*args)  # it may also be the meta device
            return card(self.cards.of(args[0])) if real.type == "cpu" else real
        if func is Tensor.cpu:
            func, kwargs = Tensor.to, {"device": card(0)}
        if func is Tensor.to and (target := _device(args[1:], kwargs)) is not None:
            x = args[0]
            dtype = kwargs.get("dtype") or next((each for each in args[1:] if isinstance(each, torch.dtype)), x.dtype)
            if target.type == x.device.type == "cpu" and self.cards.of(x) != (target.index or 0):
                return _Transfer.apply(x, self.cards, target.index or 0, dtype)
        if (
            func is Tensor.backward
        ):  # of a loss; it may compute a forward pass again, in which devices must be right too
            with self:
                start = torch.ones_like(args[0])
                return _engine_run_backward(
                    args, (start,), False, False, (), allow_unreachable=True, accumulate_grad=True
                )
        return func(*args, **kwargs)


def _device(args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    found = kwargs.get("device", args[0] if args else None)
    if isinstance(found, Tensor):
        return found.device
    return torch.device(found) if isinstance(found, str | torch.device) else None


class _Operations(TorchDispatchMode):
    """Refuse operations on tensors of several cards, forward and backward."""

    def __init__(self, cards: Cards) -> None:
        super().__init__()
        self.cards = cards

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        lists = [each for each in args if isinstance(each, list | tuple) and each and isinstance(each[0], Tensor)]
        out = func(*args, **kwargs)
        if name == "aten::copy_":
            source, target = self.cards.of(args[1]), self.cards.of(args[0])
            if source != target:
                self.cards.copies[source, target, tuple(args[1].shape)] += 1
        elif name.startswith(("aten::_foreach", "aten::_fused")) and lists:  # torch deals with each device by itself
            results = out if isinstance(out, list | tuple) else [None] * len(lists[0])
            for together in zip(*lists, results, strict=True):
                self._one_card(name, together[:-1], together[-1:])
        else:
            self._one_card(name, tree_leaves((args, kwargs)), out, kwargs.get("device"))
        return out

    def _one_card(self, name: str, inputs: Any, out: Any, device: torch.device | None = None) -> None:
        tensors = [each for each in inputs if isinstance(each, Tensor) and each.device.type == "cpu"]
        placed = [each for each in tensors if each.dim() or not self.cards.is_of_host(each)]
        found = {self.cards.of(each) for each in placed}
        if len(found) > 1:
            shapes = [(tuple(each.shape), self.cards.of(each)) for each in tensors]
            raise MixedCards(f"{name} on tensors of several cards: {shapes}")
        if device is None and all(map(self.cards.is_of_host, tensors)):
            return
        number = found.pop() if found else 0
        if device is not None and (device.index or not tensors):
            number = device.index or 0
        for each in tree_leaves(out):
            if isinstance(each, Tensor) and each.device.type == "cpu":
                self.cards.put(each, number)


@contextmanager
def virtual_cards(monkeypatch: pytest.MonkeyPatch):
    """Several cards within the block; models that are loaded in it by a `device_map` are on them."""
    cards = Cards()
    load = AutoModelForCausalLM.from_pretrained.__func__

    def from_pretrained(cls: Any, *args: Any, device_map: dict[str, torch.device], **kwargs: Any) -> Any:
        model = load(cls, *args, device_map={"": "cpu"}, **kwargs)
        for name, device in device_map.items():  # the whole model first, then its parts
            cards.put_module(model.get_submodule(name), device.index or 0)
        return model

    with monkeypatch.context() as patch, _Devices(cards), _Operations(cards):
        patch.setattr(AutoModelForCausalLM, "from_pretrained", classmethod(from_pretrained))
        # Where a forward pass is computed again, torch compares devices as it finds them inside of operations.
        patch.setitem(checkpoint._allowed_determinism_checks_to_fns, "default", lambda x: (x.shape, x.dtype))
        yield cards
