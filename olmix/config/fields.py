"""How files that people edit are checked: the types of their values, and an error in one line for what does not fit."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from olmix.errors import ConfigError
from olmix.proxy.sizes import Size

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# Columns of evaluation suites are tasks' names as they stand: arc_challenge:rc::olmes.
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
# G and P are how speeds are written.
_SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12, "p": 10**15}
_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\+?\d+)?)([kmbgtp]?)", re.IGNORECASE)


def count(value: object) -> object:
    """A whole number, or text such as 200k, 10M, 1.5B, 1T or 1e12."""
    if isinstance(value, str):
        match = _COUNT.fullmatch(value.replace("_", "").strip())
        if match is None:
            raise ValueError("write a whole number, or a number with k, M, B or T, such as 200k or 1T")
        number = float(match[1]) * _SUFFIXES.get(match[2].lower(), 1)
        if not math.isfinite(number) or number != int(number):
            raise ValueError("write a whole number")
        return int(number)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text; put the name in quotes")
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name; use at most 64 of a-z, 0-9, _ and -, the first a letter or digit")
    return value


def _task(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text; put the name in quotes")
    if not _TASK.fullmatch(value):
        raise ValueError(
            f"{value!r} is not the name of a task; use at most 128 of A-Z, a-z, 0-9 and _ - . :, the first a letter or "
            "digit"
        )
    return value


Count = Annotated[int, BeforeValidator(count), Field(gt=0, lt=2**63)]
Name = Annotated[str, BeforeValidator(_name)]
TaskName = Annotated[str, BeforeValidator(_task)]
Model = TypeVar("Model", bound=BaseModel)
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A mapping of a file that people edit: nothing unknown, nothing of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)


def parse_count(text: str) -> int:
    """A count given on the command line, such as 1T; raises ConfigError."""
    try:
        return int(str(count(text)))
    except ValueError as error:
        raise ConfigError(f"{text!r}: {error}") from None


def check(path: Path, content: object, model: type[Model]) -> Model:
    """`content` of the file `path` as `model`; raises ConfigError that names every offending key in one line."""
    if not isinstance(content, dict):
        raise ConfigError(f"contains {type(content).__name__}, not a mapping of keys", file=path)
    for key in _beyond_64_bits(content):
        raise ConfigError("a whole number of more than 64 bits", file=path, key=key, way_out="write a smaller one")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _one_error(path, [_explain(e, model) for e in error.errors()]) from None


def _one_error(path: Path, found: Sequence[tuple[str, str]]) -> ConfigError:
    """One error of all that were found, each a key and what is wrong with it; its own key is the first."""
    (key, message), *others = found
    more = "".join(f"; {other}: {text}" if other else f"; {text}" for other, text in others)
    return ConfigError(message + more, file=path, key=key or None)


def _beyond_64_bits(content: object, key: str = "") -> Iterator[str]:
    """Keys of numbers that neither files nor arrays hold."""
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, child in children:
        yield from _beyond_64_bits(child, f"{key}.{name}" if key else str(name))
    if isinstance(content, int) and not -(2**63) <= content < 2**63:
        yield key


def _explain(error: Any, model: type[BaseModel]) -> tuple[str, str]:
    """The key of a pydantic error, and what is wrong with it."""
    location = [
        part for part in error["loc"] if part != "[key]" and not str(part).startswith(("function-", "literal["))
    ]
    key = ".".join(str(part) for part in location)
    if location[:1] == ["domains"] and location[2:] == ["description"]:
        return key, "write descriptions under the top-level key `descriptions`, where an edit re-runs nothing"
    if error["type"] == "extra_forbidden":
        return key, _unknown(location, model)
    if location == ["proxy"] and error["input"] == "external":
        return key, "external is a key of proxy; write `external: true` there, beside the other keys"
    if error["type"] == "missing":
        return key, "missing; " + ("dvc.yaml needs it, write `sources: {}`" if key == "sources" else "add it")
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if error["type"] != "value_error" else message
    shown = error["input"]
    given = f" (it is {shown!r})" if isinstance(shown, str | int | float | bool) and repr(shown) not in message else ""
    return key, f"{message}{given}"


def _unknown(location: list[Any], model: type[BaseModel]) -> str:
    """What to say of a key that is not known."""
    if location[0] == "proxy" and location[-1] in Size.__dataclass_fields__:
        return "belongs under proxy.size; write `size: {layers: ..., heads: ..., width: ..., hidden: ...}`"
    if location[0] == "domains" and location[-1] == "partition_by":
        return "shards with several domains belong under `sources`, beside `domains`"
    close = difflib.get_close_matches(str(location[-1]), _fields(model, location[:-1]), n=1)
    return "unknown key" + (f"; did you mean {close[0]}?" if close else "; remove it")


def _fields(model: type[BaseModel], location: list[Any]) -> list[str]:
    """Keys that are allowed at `location`."""
    for part in location:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            continue  # a name, such as a domain's: its model was found one step before
        nested = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        model = next((a for a in nested if issubclass(a, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
