"""Small random models of transformers' families, and rl_lightning's numbers on them against plain transformers and PEFT."""
