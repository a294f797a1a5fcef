"""Dataclasses from the tables of a TOML file, and back: keys and types checked, nothing guessed."""

from __future__ import annotations

import json
import math
import types
import typing
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from hilum.errors import RecipeError, nearest


def build(kind: type, content: dict[str, Any], where: str) -> Any:
    """A dataclass from a dict; ``where`` is its dotted key with a dot behind it, or nothing.

    Raises
    ------
    RecipeError
        An unknown key (the nearest one is named), a wrong type or an impossible value.
    """
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in content.items():
        dotted = f"{where}{key}"
        if key not in known:
            near = nearest(key, known)
            raise RecipeError(f"no such key in a recipe: {dotted}. {near}")
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise RecipeError(f"a table is expected: {dotted}. Write [{dotted}].")
            values[key] = build(typing.cast(type, hints[key]), value, f"{dotted}.")
        else:
            values[key] = _typed(hints[key], value, dotted)
    try:
        return kind(**values)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"an impossible value: {where.rstrip('.')} ({error}).") from None


def _typed(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint``; only the changes that lose nothing are made."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        raise RecipeError(f"no such value: {where} = {value!r}. {nearest(str(value), arguments)}")
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _typed(arguments[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(inner) == len(value):
            return tuple(_typed(h, v, where) for h, v in zip(inner, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {str(k): _option(v, f"{where}.{k}") for k, v in value.items()}
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # a whole number that no float holds
            if math.isfinite(value):
                return float(value)
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    raise RecipeError(f"a wrong type: {where} = {value!r}. It takes {_words(hint)}.")


def _option(value: Any, where: str) -> Any:
    if isinstance(value, list | tuple):
        return [_option(v, where) for v in value]
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise RecipeError(f"a wrong type: {where} = {value!r}. It takes numbers, texts and lists.")


def _words(hint: Any) -> str:
    simple = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    if hint in simple:
        return simple[hint]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if arguments[-1] is ...:
            return f"a list, each item {_words(arguments[0])}"
        return "[" + ", ".join(_words(a) for a in arguments) + "]"
    return "a table"


def plain(value: Any) -> Any:
    """A dataclass as the nested dict of its file."""
    if is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        found = {item.name: plain(getattr(value, item.name)) for item in fields(value)}
        return {k: float(v) if hints[k] is float else v for k, v in found.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return dict(value) if isinstance(value, dict) else value


def toml(content: dict[str, Any], prefix: str = "") -> str:
    """A nested dict as TOML; None is left out."""
    lines = [
        f"{_key(key)} = {_value(v)}"
        for key, v in content.items()
        if not isinstance(v, dict) and v is not None
    ]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in content.items():
        if isinstance(value, dict) and (value or not prefix):
            name = f"{prefix}{_key(key)}"
            text += f"\n[{name}]\n{toml(value, f'{name}.')}"
    return text


def _key(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if bare else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """JSON's escapes are TOML's, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
