"""Train language models by GRPO (reinforcement learning with verifiable rewards) on one GPU; start reading at module.py."""

import logging
import warnings

__version__ = "0.1.0"

# Both come when libraries are imported: in a notebook without ipywidgets, where progress is text here; and bitsandbytes' offer to
# download a faster kernel for CPUs.
warnings.filterwarnings("ignore", "IProgress not found")
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not record.msg.startswith("Failed to load CPU gemm_4bit_forward from kernels-community")
)
