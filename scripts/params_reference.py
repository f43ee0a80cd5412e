"""docs/params.md: every key of params.yaml and runtime.yaml, from the models that check them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from olmix.config.params import COSMETIC, Params
from olmix.config.runtime import Runtime

HEAD = """# Reference of params.yaml and runtime.yaml

Generated from the models that check the files (`make docs`); a test fails when the two differ.
A count may be written as a number or as text with k, M, B or T behind it (`200k`, `1T`).
An unknown key is an error. What has a default may be left out, but not a whole section: `dvc.yaml` names them all.

An editor completes keys, explains them and marks mistakes as you type when the first line of params.yaml names its
schema, and runtime.yaml's likewise: `# yaml-language-server: $schema=` and a path, relative to the file, or a URL. The
schemas are [params.json](schema/params.json) and [runtime.json](schema/runtime.json); in a clone of olmix the line is

```yaml
# yaml-language-server: $schema=docs/schema/params.json
```

Visual Studio Code (with the YAML extension of Red Hat), Neovim and others that speak to yaml-language-server read it;
to olmix it is a comment. Whatever takes a whole file to see, `olmix plan` says.
"""


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{list(value) if isinstance(value, tuple) else value}`"


def _nested(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((a for a in candidates if isinstance(a, type) and issubclass(a, BaseModel)), None)


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        nested = _nested(field.annotation)
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel) and nested is not None:
            rows += _rows(nested, f"{prefix}{name}.")
            continue
        description = " ".join((field.description or "").split())
        rows.append(f"| `{prefix}{field.alias or name}` | {_default(default)} | {description} |")
    return rows


def render() -> str:
    """The text of docs/params.md."""
    lines = [HEAD, "## params.yaml", ""]
    for name, field in Params.model_fields.items():
        key = field.alias or name
        nested = _nested(field.annotation)
        if nested is None:
            lines += [f"### `{key}`", "", field.description or "", ""]
            continue
        each = "<name>." if key in ("domains", "sources") else ""
        cosmetic = " (cosmetic)" if key in COSMETIC else ""
        lines += [f"### `{key}`{cosmetic}", "", (nested.__doc__ or "").strip(), ""]
        lines += ["| key | default | what it is |", "|---|---|---|", *_rows(nested, f"{key}.{each}"), ""]
    lines += ["## runtime.yaml", "", "Nothing here can change a result.", ""]
    lines += ["| key | default | what it is |", "|---|---|---|", *_rows(Runtime, ""), ""]
    return "\n".join(lines)
