"""The verifiers that ship: text, numbers, choices, lists, mathematics, JSON, patterns and programs.

A new verifier is one file here, with a subclass of `Verifier`. May import `sandbox`, `verifier`, `plain_answers` and `types`. Each
takes time linear in the answer's length, or is stopped by the worker's time limit.
"""

from rl_lightning.environments.verifiers.choice import Choice
from rl_lightning.environments.verifiers.code_tests import CodeTests
from rl_lightning.environments.verifiers.exact_text import ExactText
from rl_lightning.environments.verifiers.items import Items
from rl_lightning.environments.verifiers.json_value import JSONValue
from rl_lightning.environments.verifiers.mathematics import Mathematics
from rl_lightning.environments.verifiers.number import Number
from rl_lightning.environments.verifiers.pattern import Pattern

__all__ = ["Choice", "CodeTests", "ExactText", "Items", "JSONValue", "Mathematics", "Number", "Pattern"]
