"""The verifiers that ship: text, numbers, choices, lists, mathematics, JSON and patterns.

A new verifier is one file here, with a subclass of `Verifier`. May import `verifier`, `plain_answers` and `types`. Each takes time
linear in the answer's length, or is stopped by the worker's time limit.
"""

from rl_lightning.environments.verifiers.choice import Choice
from rl_lightning.environments.verifiers.exact_text import ExactText
from rl_lightning.environments.verifiers.items import Items
from rl_lightning.environments.verifiers.json_value import JSONValue
from rl_lightning.environments.verifiers.mathematics import Mathematics
from rl_lightning.environments.verifiers.number import Number
from rl_lightning.environments.verifiers.pattern import Pattern

__all__ = ["Choice", "ExactText", "Items", "JSONValue", "Mathematics", "Number", "Pattern"]
