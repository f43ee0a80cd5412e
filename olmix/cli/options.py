"""The options of `olmix fit` and `olmix sweep`, made from the keys of the YAML file: `olmix.config.fit_options`.

The model is loaded only when one of these commands runs, since pydantic would slow down all the others.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from olmix.project import Project

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from olmix.config.fit_options import FitOptions


class _File(click.Path):
    """A path, from the folder that -C names."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        project = ctx.find_object(Project) if ctx else None
        return (project or Project()).root / str(super().convert(value, param, ctx))


FILE = _File()


class TableCommand(click.Command):
    """A command that reads tables of a swarm: RATIOS, METRICS, --config, and an option for every key but `without`."""

    def __init__(self, *args: Any, without: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._without = without

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own parameters after those of the model."""
        return [*self._of_the_model, *super().get_params(ctx)]

    @functools.cached_property
    def _of_the_model(self) -> list[click.Parameter]:
        from olmix.config.fit_options import FitOptions, OlderSwarm

        made: list[click.Parameter] = [
            click.Argument(["ratios"], type=FILE, required=False),
            click.Argument(["metrics"], type=FILE, required=False),
            click.Option(["--config"], type=FILE, help="YAML file with these options as keys."),
        ]
        for name, field in FitOptions.model_fields.items():
            key = field.alias or name
            if key not in ("ratios", "metrics", *self._without):
                made.append(_option(key, field))
            if key == "also":
                made.append(_option("also_domain", OlderSwarm.model_fields["domains"]))
        return made


def _option(key: str, field: FieldInfo) -> click.Option:
    """The option of one key; not given, it is None or (), so that the file's value or the model's default stands."""
    from olmix.config.fit_options import Flag

    flag = next((mark for mark in field.metadata if isinstance(mark, Flag)), Flag(key.replace("_", "-")))
    kind = _bare(field.annotation)
    many = get_origin(kind) in (list, dict)
    silent = many or field.default is None or field.default is False
    shown = "" if silent else f"  [default: {_text(field.default)}]"
    return click.Option(
        [f"--{flag.name}", key],
        type=(FILE, FILE) if key == "also" else _type(kind, flag.metavar),
        is_flag=kind is bool,
        default=None,
        multiple=many,
        metavar=flag.metavar,
        help=f"{field.description}{shown}",
    )


def _bare(annotation: Any) -> Any:
    """A type without None and without what its values must satisfy."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _bare(next(kind for kind in get_args(annotation) if kind is not NoneType))
    return annotation


def _type(kind: Any, metavar: str | None) -> Any:
    """What click checks already; whatever has a form of its own, and so a metavar, stays text."""
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    return FILE if kind is Path else kind if metavar is None and kind in (bool, int, float) else str


def _text(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def fit_options(given: dict[str, Any], root: Path) -> FitOptions:
    """Options of the command line over those of --config; what was not given is not there. The paths in --config
    are below `root`."""
    from olmix.config.fit_options import older_swarms, read_options

    file = given.pop("config")
    also, domains = given.pop("also"), given.pop("also_domain")
    named = {key: value for key, value in given.items() if value is not None and value != ()}
    if "weights" in named:
        weights = _pairs(named["weights"], "weight")
        named["weights"] = {task: _number(value, f"--weight {task}") for task, value in weights.items()}
    if "groups" in named:
        named["groups"] = {task: metrics.split(",") for task, metrics in _pairs(named["groups"], "group").items()}
    if also:
        named["also"] = older_swarms(also, _pairs(domains, "also-domain"))
    elif domains:
        raise click.UsageError("--also-domain needs --also")
    options = read_options(file, named)
    from_file = options.model_fields_set - named.keys()
    moved: dict[str, Any] = {
        name: root / path for name, path in options if name in from_file and isinstance(path, Path)
    }
    if "also" in from_file:
        moved["also"] = [
            old.model_copy(update={"ratios": root / old.ratios, "metrics": root / old.metrics}) for old in options.also
        ]
    return options.model_copy(update=moved)


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise click.UsageError(f"--{option} {text}: write NAME=VALUE")
        if name in pairs:
            raise click.UsageError(f"--{option} {name}: given twice")
        pairs[name] = value
    return pairs


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{option}: {text!r} is not a number") from None
