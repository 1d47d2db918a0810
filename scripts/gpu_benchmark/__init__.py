"""The parts of `scripts/gpu_bench.py`: one module each; every job runs in a separate process.

A part is a function of its job's settings that reports as it goes, so that what it has found survives its end. On a CPU every part
runs at toy size; what only CUDA can count is then None.
"""

from collections.abc import Callable

Report = Callable[..., None]
"""Takes findings by name; a later one of the same name replaces an earlier one."""
