"""A toy workload of the benchmark against TRL, and rates of a made-up machine."""

from __future__ import annotations

from benchmark.workloads import Shape, Workload

SHAPE = Shape(vocabulary=1024, layers=1, width=32, mlp=64, heads=2, kv_heads=1)

TOY = Workload("toy", prompts=2, generations=2, new_tokens=4, shape=SHAPE, peer_rows=2, steps=1)

RATES = {"flops": {"square": 2e9}, "bandwidth": {"read": 1e9}}
