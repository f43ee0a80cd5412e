"""docs/schema/params.json and runtime.json: JSON schemas for editors, from the models that check the files.

pydantic knows the types of fields; what their own checks accept besides, such as `8M` or `5x`, is said here for each of
them. Gives up: what only a whole file can be wrong in, such as a task that two families name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from olmix.config import fields, params, runtime
from olmix.data.shards import KINDS
from olmix.laws.registry import AUTO, law_kinds
from olmix.proxy.sizes import SIZES

_COUNT: JsonSchemaValue = {
    "anyOf": [
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2**63},
        {"type": "string", "pattern": r"^[0-9][0-9_]*(\.[0-9][0-9_]*)?([eE]\+?[0-9]+)?[kKmMbBgGtTpP]?$"},
    ]
}
_ONE = {"type": ["string", "integer", "boolean"]}
_ONE_OR_NULL = {"type": ["string", "integer", "boolean", "null"]}
# What a check that stands before a field's type makes of it: the schema of what may be written, given that of the type.
_ACCEPTED: dict[Callable[..., Any], Callable[[JsonSchemaValue], JsonSchemaValue]] = {
    fields.count: lambda _: _COUNT,
    fields._name: lambda _: {"type": "string", "pattern": f"^{fields._NAME.pattern}$"},
    fields._task: lambda _: {"type": "string", "pattern": f"^{fields._TASK.pattern}$"},
    params._format: lambda _: {"enum": [*KINDS, None]},
    params._values: lambda _: _one_or_some(_ONE),
    params._others: lambda _: _one_or_some(_ONE_OR_NULL),
    params._size: lambda dimensions: {"anyOf": [{"enum": list(SIZES)}, dimensions]},
    params._budget: lambda _: {
        "anyOf": [*_COUNT["anyOf"], {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?[xX]$"}, {"const": "auto"}]
    },
    params._law: lambda _: {"enum": [AUTO, *sorted(law_kinds())]},
    runtime._workers: lambda _: {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]},
    runtime._device_name: lambda _: {"type": "string", "pattern": r"^(auto|cpu|cuda(:[0-9]+)?)$"},
}


def _one_or_some(value: Mapping[str, Any]) -> JsonSchemaValue:
    return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}


class _Generator(GenerateJsonSchema):
    """What may be written into a file, where pydantic says what may be given to a model."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """Raises KeyError for a check that this module knows nothing of."""
        return _ACCEPTED[schema["function"]["function"]](self.generate_inner(schema["schema"]))

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """pydantic forgets what names are wrong."""
        content: JsonSchemaValue = {"type": "object"}
        if "keys_schema" in schema:
            content["propertyNames"] = self.generate_inner(schema["keys_schema"])
        if "values_schema" in schema:
            content["additionalProperties"] = self.generate_inner(schema["values_schema"])
        if "min_length" in schema:
            content["minProperties"] = schema["min_length"]
        return content

    def field_title_should_be_set(self, schema: Any) -> bool:
        """An editor shows the key already."""
        return False


def render(model: type[BaseModel], name: str) -> str:
    """The schema of the file `name`, which `model` checks."""
    schema = model.model_json_schema(schema_generator=_Generator)
    schema = {"$schema": _Generator.schema_dialect, "title": name, **_plain(schema)}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _plain(schema: Any) -> Any:
    """Descriptions on one line, and neither titles of models nor bounds that are no part of JSON schema."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if isinstance(schema, float) and schema.is_integer():
        return int(schema)  # as some versions of pydantic write it
    if not isinstance(schema, dict):
        return schema
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _plain(value)
        for key, value in schema.items()
        if key not in ("gt", "lt") and not (key == "title" and isinstance(value, str))
    }
