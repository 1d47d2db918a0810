"""The verifier of programs: the model's code is run on tests in processes that can do nothing else, and judged outside of them."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from rl_lightning.environments.verifier import Verifier, shown
from rl_lightning.environments.verifiers.expected_tests import ExpectedTest, expected_tests
from rl_lightning.sandbox import programs
from rl_lightning.types import require

_FENCE = "```"
_FAILED = {
    "time": "took longer than {:g} s",
    "too_long": "is, or gave something, too long",
    "no_result": "gave no result: it raised an exception, ended, or gave what is no plain value",
}
_LANGUAGES = ("", "python", "python3", "py")


@dataclass
class CodeTests(Verifier):
    """A Python program that passes tests. Only on 64-bit Linux on x86-64, whose kernel can hold such a program.

    The expected answer is the tests: `assert f(2) == 3` lines, or JSON as APPS has it. The program is run again for each test, in a
    process of its own, and never sees what the right results are; docs/scoring.md says what holds it.

    Raises:
        UserError: a setting out of range, or a system that cannot hold the programs.
    """

    seconds: float = 1.0
    """Time limit of one test; those of an answer must fit into `model.score_seconds` together. Above 0, at most 3600."""

    fraction: bool = False
    """Whether the score is the share of the tests that are passed; otherwise it is 1 for all of them, and else 0."""

    memory_mib: int = 512
    """Address space that a program may have, MiB; 64 or more."""

    def __post_init__(self) -> None:
        require("verifier.seconds", self.seconds, 0 < self.seconds <= 3600, "above 0 and at most 3600")
        require("verifier.memory_mib", self.memory_mib, self.memory_mib >= 64, "64 or more")
        programs.ProgramRunner(self.memory_mib).close()

    def start(self) -> None:
        """Start the process that starts the programs, which a worker could not do later."""
        programs.runner(self.memory_mib)

    def check_expected(self, expected: str) -> None:
        """See `expected_tests`; the right program is not known."""
        expected_tests(expected)

    def __call__(self, expected: str, answer: str) -> float:
        tests, program, passed = expected_tests(expected), source(answer), 0
        for test in tests:
            if self._passes(program, test):
                passed += 1
            elif not self.fraction:
                return 0.0
        return passed / len(tests)

    def explain(self, expected: str, answer: str) -> str:
        """The first test that is not passed, and what the program gave."""
        tests, program = expected_tests(expected), source(answer)
        try:
            ast.parse(program)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"not Python: {error}"
        for number, test in enumerate(tests, start=1):
            if fault := self._fault(program, test):
                return f"test {number} of {len(tests)}, {shown(test.call or f'input {test.given!r}')}: {fault}"
        return f"passes {'all ' if len(tests) > 1 else ''}{len(tests)} test{'s' if len(tests) > 1 else ''}"

    def _passes(self, program: str, test: ExpectedTest) -> bool:
        return not self._fault(program, test)

    def _fault(self, program: str, test: ExpectedTest) -> str:
        """What is wrong with the program's result; empty if nothing is."""
        try:
            made = programs.runner(self.memory_mib).run(program, test.call, test.given, self.seconds)
        except programs.ProgramFailed as error:
            return _FAILED[error.reason].format(self.seconds)
        return "" if test.is_right(made) else f"gave {shown(repr(made))}; right is {shown(repr(test.expected))}"


def source(answer: str) -> str:
    """The program of an answer: what is in its code fence, if it has one, and otherwise the whole text."""
    parts = answer.split(_FENCE)
    language, line_end, inside = parts[1].partition("\n") if len(parts) == 3 else ("", "", "")
    return inside if line_end and language.strip().lower() in _LANGUAGES else answer
