"""Push files to a model repository of the Hugging Face hub; every failure is one line.

May import only `types`. The token is huggingface_hub's own, from its login or HF_TOKEN; it is never printed or stored. Main
exports: `pushing.Repository`, `pushing.look`, `pushing.push`.
"""
