"""Train language models by GRPO (reinforcement learning with verifiable rewards) on one GPU; start reading at module.py."""

import warnings

__version__ = "0.1.0"

# In a notebook without ipywidgets, when libraries are imported; the progress shown is text.
warnings.filterwarnings("ignore", "IProgress not found")
