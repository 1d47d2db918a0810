"""Environments (tasks): problems by number, verifiers for their answers, difficulty levels, and the stream of prompts.

May import `curriculum`, `sandbox` and the layers below; it is the only package that imports reasoning_gym, whose 105 tasks are one
family of environments (`environments.reasoning_gym`), and the only one that reads a problem's `payload`. Main exports:
`Environment`, the base class of a task; `QuestionFile`, a task from a file, with its `Verifier`, such as `CodeTests` for programs;
`EnvironmentMixture` with its `TaskSpec`s, several tasks with weights. The stream, prompts, answer formats, levels and workers are
imported from their modules.
"""

from rl_lightning.environments.environment import Environment, GenerationFailed
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.questions import QuestionFile, Questions
from rl_lightning.environments.verifier import Verifier
from rl_lightning.environments.verifiers.code_tests import CodeTests

__all__ = [
    "CodeTests",
    "Environment",
    "EnvironmentMixture",
    "GenerationFailed",
    "QuestionFile",
    "Questions",
    "TaskSpec",
    "Verifier",
]
