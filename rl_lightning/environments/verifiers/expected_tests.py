"""Read the tests that are the expected answer to a programming question, and compare a program's results with them.

The results are compared here, outside of the process that runs the program, which is told the calls and never the right results.
So a test that leaves the comparison to the program's process is refused, such as `assert math.isclose(f(1), 2)`.
"""

from __future__ import annotations

import ast
import builtins
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from rl_lightning.sandbox.programs import MOST_BYTES, MOST_DEPTH

_MOST_CHARACTERS = MOST_BYTES // 12
"""A longer expected result is refused; JSON may take 12 bytes for a character."""

_MAKERS: dict[str, Callable[[Any], Any]] = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "sorted": sorted,
}
"""What may stand around the literal on a test's right side."""


@dataclass(frozen=True)
class ExpectedTest:
    """One test.

    Attributes:
        call: the expression to evaluate after the program; None: the program is a script.
        given: what a script reads from standard input.
        expected: the right value, or a script's right output.
        from_json: whether the value comes from JSON, which has no tuples: a tuple counts as the list of its items.
    """

    call: str | None
    given: str
    expected: Any
    from_json: bool = False

    def is_right(self, made: Any) -> bool:
        """Whether the result of a program is the right one: by ==, or for a script line by line without white space at the end."""
        if self.call is None:
            return _lines(made) == _lines(self.expected)
        return bool((_lists(made) if self.from_json else made) == self.expected)


def expected_tests(text: str) -> list[ExpectedTest]:
    """Read tests: `assert` lines, a list of them, or a JSON object with inputs and outputs.

    Args:
        text: `assert CALL == LITERAL`, `assert f(…)` and `assert not f(…)` lines; or {"inputs": […], "outputs": […]} with texts for
            standard input and output; or the same with "fn_name", lists of arguments, and values.

    Raises:
        ValueError: it is none of these, there is no test, or a program could not make an expected value.
    """
    text = text.strip()
    try:
        tests = list(_from_json(text) if text.startswith("{") else _from_asserts(text))
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"the tests are nested too deep: {text[:60]!r}") from error
    if not tests:
        raise ValueError("there are no tests")
    for test in tests:
        _check_value(test.expected)
        if len(repr(test.expected)) > _MOST_CHARACTERS:
            raise ValueError(f"an expected result is longer than {_MOST_CHARACTERS} characters")
    return tests


def _from_asserts(text: str) -> Iterator[ExpectedTest]:
    try:
        if text.startswith("["):  # the column has lists of lines, as that of MBPP
            text = "\n".join(map(str, ast.literal_eval(text)))
        statements = ast.parse(text).body
    except SyntaxError as error:
        raise ValueError(f"the tests are not Python: line {error.lineno}: {error.msg}") from error
    for statement in statements:
        line = ast.unparse(statement)
        if not isinstance(statement, ast.Assert):
            raise ValueError(f"only assert lines can be tests, not {line[:60]!r}")
        yield _test(statement.test, line)


def _test(tested: ast.expr, line: str) -> ExpectedTest:
    """The test of one assert line."""
    match tested:
        case ast.Compare(left=called, ops=[ast.Eq()], comparators=[right]):
            expected, call = _literal(right, line), ast.unparse(called)
        case ast.UnaryOp(op=ast.Not(), operand=called):
            expected, call = False, f"bool({ast.unparse(called)})"
        case called:
            expected, call = True, f"bool({ast.unparse(called)})"
    if isinstance(expected, bool) and not _calls_with_literals(called):
        raise ValueError(f"a truth can only be that of a call with literals, such as `assert f(2)`, not {line[:60]!r}")
    nodes = list(ast.walk(called))
    if any(isinstance(node, ast.Compare) for node in nodes) or not any(map(_is_own_call, nodes)):
        raise ValueError(f"must be `assert CALL == LITERAL`, where the call makes no comparison, not {line[:60]!r}")
    return ExpectedTest(call, "", expected)


def _is_own_call(node: ast.AST) -> bool:
    """Whether it is a call of the program's own function."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not hasattr(builtins, node.func.id)


def _calls_with_literals(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not _is_own_call(node):
        return False
    try:
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            ast.literal_eval(argument)
    except (ValueError, TypeError):
        return False
    return True


def _literal(node: ast.expr, line: str) -> Any:
    """The value of a literal, or of a `set(…)` or the like around one."""
    try:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
            return _MAKERS[node.func.id](_literal(node.args[0], line))
        return ast.literal_eval(node)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the right result must be a literal: {line[:60]!r}") from error


def _from_json(text: str) -> Iterator[ExpectedTest]:
    tests = json.loads(text, parse_constant=_refuse_constant)
    inputs, outputs, name = tests.get("inputs"), tests.get("outputs"), tests.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError('the tests must have "inputs" and "outputs", two lists of the same length')
    if name is not None and not (isinstance(name, str) and name.isidentifier() and not iskeyword(name)):
        raise ValueError(f'"fn_name" must be the name of a function, not {name!r}')
    for given, expected in zip(inputs, outputs, strict=True):
        yield _script_test(given, expected) if name is None else _call_test(name, given, expected)


def _script_test(given: Any, expected: Any) -> ExpectedTest:
    if not isinstance(given, str) or not isinstance(expected, str):
        raise ValueError(f'without "fn_name", inputs and outputs must be texts, not {str(given)[:60]!r}')
    return ExpectedTest(None, given, expected)


def _call_test(name: str, given: Any, expected: Any) -> ExpectedTest:
    if not isinstance(given, list):
        raise ValueError(f'with "fn_name", each input must be a list of arguments, not {str(given)[:60]!r}')
    # As on the sites that such tests come from, the function may be a method of a class Solution.
    call = f"(Solution().{name} if 'Solution' in globals() else {name})(*{given!r})"
    return ExpectedTest(call, "", expected, from_json=True)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_value(value: Any, depth: int = 0) -> None:
    """Raise an error for a value that the result of a program can never be equal to."""
    if depth > MOST_DEPTH:
        raise ValueError(f"an expected result is nested deeper than {MOST_DEPTH}")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _check_value(item, depth + 1)
    elif not (value is None or isinstance(value, bool | int | float | str | bytes)):
        raise ValueError(f"a program cannot give a {type(value).__name__} back")


def _lists(value: Any) -> Any:
    """The value with lists in place of tuples."""
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return {key: _lists(item) for key, item in value.items()} if isinstance(value, dict) else value


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
