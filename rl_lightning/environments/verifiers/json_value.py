"""Answers that are JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from rl_lightning.environments.verifier import Verifier, shown
from rl_lightning.types import UserError, first_line

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(?P<inside>.*)\n\s*```\s*", re.DOTALL)


@dataclass
class JSONValue(Verifier):
    """The same JSON value; objects' keys in any order, 1 and 1.0 the same number, true and 1 different values. A code block around
    it is left out; a key that an object has twice, NaN, Infinity and numbers beyond 1.8e308 are no JSON."""

    schema: dict[str, Any] | None = None
    """A JSON Schema (the extra [json], package jsonschema): then an answer is right that it accepts, whatever the expected one."""

    def __post_init__(self) -> None:
        if self.schema is None:
            return
        if not isinstance(self.schema.get("$schema", ""), str):
            raise UserError(
                f"verifier.schema: not a JSON Schema (its $schema {self.schema['$schema']!r} is not a text)"
            )
        try:
            from jsonschema import SchemaError
            from jsonschema.validators import validator_for
        except ModuleNotFoundError as error:
            raise UserError("verifier.schema: needs the package jsonschema: pip install -e .[json]") from error
        try:
            validator_for(self.schema).check_schema(self.schema)
        except SchemaError as error:
            raise UserError(f"verifier.schema: not a JSON Schema ({first_line(error)})") from error

    def __call__(self, expected: str, answer: str) -> float:
        return float(not self._fault(expected, _read(answer)))

    def check_expected(self, expected: str) -> None:
        """With a schema, there need not be an expected answer."""
        if self.schema is None or expected:
            super().check_expected(expected)

    def explain(self, expected: str, answer: str) -> str:
        """Where they differ, or what of the schema is not kept."""
        try:
            given = _read(answer)
        except ValueError as error:
            return f"not JSON: {error}: {shown(answer)!r}"
        return self._fault(expected, given) or (
            "the schema accepts it" if self.schema is not None else "the same value"
        )

    def _fault(self, expected: str, given: Any) -> str:
        """What is wrong with the value; empty if nothing is."""
        if self.schema is None:
            return _difference(_read(expected), given, "$")
        from jsonschema.exceptions import best_match
        from jsonschema.validators import validator_for

        fault = best_match(validator_for(self.schema)(self.schema).iter_errors(given))
        return "" if fault is None else f"schema: at {fault.json_path}: {shown(fault.message)}"


def _read(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is too deep.
    """
    fenced = _FENCE.fullmatch(text)
    return json.loads(
        fenced["inside"] if fenced else text,
        parse_constant=_refuse_constant,
        parse_float=_finite,
        object_pairs_hook=_object,
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{shown(digits)} is too large")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Which of two equal keys counts is not the same everywhere, so an answer with two would be two answers."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)!r} twice")
        found[key] = value
    return found


def _difference(wanted: Any, given: Any, where: str) -> str:
    """Where two values differ first; empty if nowhere."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        if missing := [key for key in wanted if key not in given]:
            return f"at {where}: the key {shown(missing[0])!r} is missing"
        if extra := [key for key in given if key not in wanted]:
            return f"at {where}: the key {shown(extra[0])!r} is not expected"
        found = (_difference(wanted[key], given[key], f"{where}.{key}") for key in wanted)
        return next(filter(None, found), "")
    if isinstance(wanted, list) and isinstance(given, list):
        if len(wanted) != len(given):
            return f"at {where}: {len(given)} elements; expected {len(wanted)}"
        found = (_difference(a, b, f"{where}[{n}]") for n, (a, b) in enumerate(zip(wanted, given, strict=True)))
        return next(filter(None, found), "")
    same = wanted is given if isinstance(wanted, bool) or isinstance(given, bool) else wanted == given
    return "" if same else f"at {where}: {shown(json.dumps(given))}; expected {shown(json.dumps(wanted))}"
