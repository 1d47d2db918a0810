"""Products without autograd: every way gives F.linear's result, a wrong one is never taken, and a choice is repeated."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from rl_lightning.policy import products
from rl_lightning.policy.products import WAYS, fastest, is_right, packed, product

SHAPES = [(640, 128), (128, 512), (96, 33)]


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """An empty cache, in memory and on disk."""
    monkeypatch.setenv("RL_LIGHTNING_CACHE", str(tmp_path))
    monkeypatch.setattr(products, "_SECONDS", 0.001)
    monkeypatch.setattr(products, "SMALL", 0)
    products._chosen.cache_clear()
    products._warn.cache_clear()
    yield tmp_path
    products._chosen.cache_clear()


def operands(shape=(96, 64), rows=(5, 3), turned=False):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator)
    weight = weight.T.contiguous().T if turned else weight
    x, bias = (torch.randn(size, generator=generator) for size in ((*rows, shape[1]), shape[:1]))
    return x, weight, bias


def choose(monkeypatch, name):
    """Let every measurement have this result."""
    monkeypatch.setattr(products, "fastest", lambda *_: name)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("rows", [(1, 1), (64, 1), (1, 200)])
def test_every_way_gives_what_linear_gives(monkeypatch, name, shape, turned, rows):
    choose(monkeypatch, name)
    x, weight, bias = operands(shape, rows, turned)
    for each in (bias, None):
        expected = F.linear(x.double(), weight.double(), None if each is None else each.double())
        ours = product(x, weight, each)
        assert ours.shape == expected.shape
        assert (ours - expected).norm() <= 1e-6 * expected.norm()


def missing(x, weight, bias):
    return torch.ops.mkldnn.no_such_product(x, weight, bias)


def refusing(x, weight, bias):
    raise RuntimeError("no kernel for this processor")


def without_bias(x, weight, bias):
    return F.linear(x, weight)


def slightly_wrong(x, weight, bias):
    return F.linear(x, weight, bias) * (1 + 1e-4)


def in_16_bits(x, weight, bias):
    return F.linear(x, weight, bias).bfloat16()


@pytest.mark.parametrize("broken", [missing, refusing, without_bias, slightly_wrong, in_16_bits])
def test_a_way_that_is_not_right_is_never_chosen(monkeypatch, broken):
    assert not is_right(broken, *operands(rows=(64,)))
    monkeypatch.setattr(products, "WAYS", {"linear": F.linear, "onednn": broken})
    monkeypatch.setattr(products, "_GAIN", 0.0)
    assert fastest(96, 64, True, torch.float32, 64, may_pack=False) == "linear"


def test_the_fastest_way_is_chosen_where_it_is_clearly_faster(monkeypatch):
    clock = iter(range(10**6))
    slow = {"linear": 120, "onednn": 100}
    now = [0.0]

    def taking(name):
        def way(x, weight, bias):
            now[0] += slow[name]
            return F.linear(x, weight, bias)

        return way

    monkeypatch.setattr(products, "WAYS", {name: taking(name) for name in slow})
    monkeypatch.setattr(products.time, "thread_time", lambda: now[0] + 0 * next(clock))
    assert fastest(96, 64, True, torch.float32, 64, may_pack=False) == "onednn"
    slow["linear"] = 110
    assert fastest(96, 64, True, torch.float32, 64, may_pack=False) == "linear"


def test_a_measurement_changes_neither_the_random_numbers_nor_the_threads():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        fastest(96, 64, True, torch.float32, 64, may_pack=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_process_makes_the_same_choice_without_measuring(monkeypatch, fresh):
    x, weight, _ = operands()
    choose(monkeypatch, "onednn")
    assert products.way_of(x, weight) == "onednn"
    products._chosen.cache_clear()  # as a process that is started later
    choose(monkeypatch, "linear")
    assert products.way_of(x, weight) == "onednn"
    assert products.way_of(x.new_empty(1000, 64), weight) == "linear"  # another choice
    assert sorted(path.name for path in fresh.rglob("*") if path.is_file()) == [
        "96x64_256",
        "96x64_64",
    ]


def test_of_two_processes_that_measure_at_once_the_first_decides_for_both(monkeypatch, fresh):
    x, weight, _ = operands()

    def meanwhile(*_):
        choose(monkeypatch, "linear")
        products._chosen(96, 64, True, torch.float32, True)
        return "onednn"

    monkeypatch.setattr(products, "fastest", meanwhile)
    assert products.way_of(x, weight) == "linear"


def test_a_choice_that_cannot_be_kept_is_not_made(monkeypatch, fresh, caplog):
    (fresh / "file").write_text("")
    monkeypatch.setenv("RL_LIGHTNING_CACHE", str(fresh / "file"))
    choose(monkeypatch, "onednn")
    x, weight, bias = operands()
    assert products.way_of(x, weight) == "linear"
    assert torch.equal(product(x, weight, bias), F.linear(x, weight, bias))
    product(x.new_ones(200, 64), weight)
    assert caplog.text.count("may be slower") == 1


def test_a_damaged_choice_is_torchs_own_way(monkeypatch, fresh):
    x, weight, _ = operands()
    choose(monkeypatch, "onednn")
    products.way_of(x, weight)
    (stored,) = (path for path in fresh.rglob("*") if path.is_file())
    stored.write_bytes(b"\xff")
    products._chosen.cache_clear()
    assert products.way_of(x, weight) == "linear"


def test_small_weights_are_not_measured(monkeypatch, fresh):
    monkeypatch.setattr(products, "SMALL", 96 * 64 + 1)
    choose(monkeypatch, "onednn")
    x, weight, _ = operands()
    assert products.way_of(x, weight) == "linear"
    assert not list(fresh.iterdir())


def test_autocast_and_mixed_dtypes_are_torchs_affair(monkeypatch):
    choose(monkeypatch, "onednn")
    x, weight, bias = operands()
    assert products.way_of(x.bfloat16(), weight) == "linear"
    with torch.autocast("cpu", torch.bfloat16):
        assert product(x, weight, bias).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"):
        product(x.bfloat16(), weight, bias)


@pytest.mark.parametrize("name", [*WAYS, "packed"])
def test_in_16_bits_every_way_rounds_once(monkeypatch, name):
    choose(monkeypatch, name)
    x, weight, bias = (each.bfloat16() for each in operands((640, 128), (64, 1)))
    assert products.way_of(x, weight) == (name if name in WAYS else "linear")
    exact = F.linear(x.double(), weight.double(), bias.double())
    ours = product(x, packed(weight), bias)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).norm() <= 2**-8 * exact.norm()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [(1, 1), (64, 1), (1, 200)])
def test_a_packed_weight_gives_what_linear_gives(monkeypatch, shape, rows):
    choose(monkeypatch, "packed")
    x, weight, bias = operands(shape, rows)
    held = packed(weight)
    assert held.is_mkldnn
    for each in (bias, None):
        expected = F.linear(x.double(), weight.double(), None if each is None else each.double())
        assert (product(x, held, each) - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("name", WAYS)
def test_a_weight_is_packed_only_where_that_is_fastest(monkeypatch, fresh, name):
    choose(monkeypatch, name)
    _, weight, _ = operands()
    assert packed(weight) is weight
    assert [path.name for path in fresh.rglob("*") if path.is_file()] == ["96x64_32_packed"]


def test_packing_is_measured_only_where_there_is_a_right_one(monkeypatch):
    monkeypatch.setattr(products, "WAYS", {"linear": F.linear})
    monkeypatch.setattr(products, "_GAIN", 0.0)
    measured = partial(fastest, 640, 128, True, torch.float32, 64, may_pack=True)
    monkeypatch.setattr(products, "_onednn", without_bias)
    assert measured() == "linear"
    monkeypatch.setattr(products, "_pack", lambda weight: torch.ops.mkldnn.no_such_layout(weight))
    assert measured() == "linear"
