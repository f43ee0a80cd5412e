"""params.yaml and runtime.yaml: everything wrong with them is one line with file and key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from olmix.config.fields import check, parse_count
from olmix.config.params import Params, load_params
from olmix.errors import ConfigError
from olmix.files import _OneReadingLoader, inside, parse_yaml, read_yaml, yaml_text
from olmix.project import Project
from tests.project import HERE

REPOSITORY = Path(__file__).parent.parent


def params(**changes: Any) -> dict[str, Any]:
    """The repository's own params.yaml with dotted keys changed (None deletes)."""
    content: dict[str, Any] = copy.deepcopy(read_yaml(REPOSITORY / HERE.params))
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        if value is None:
            del section[last]
        else:
            section[last] = value
    return content


def test_the_repository_is_valid() -> None:
    parsed = check(HERE.params, params(), Params)
    assert parsed.target.tokens == 8_000_000
    assert sum(parsed.task_weights().values()) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"swarm__runs_per_domian": 3}, "swarm.runs_per_domian: unknown key; did you mean runs_per_domain?"),
        ({"swarm__seed": 2**70}, "swarm.seed: a whole number of more than 64 bits; write a smaller one"),
        ({"swram": {}}, "swram: unknown key; did you mean swarm?"),
        ({"domains__py__pth": "x"}, "domains.py.pth: unknown key; did you mean path?"),
        ({"domains__py__partition_by": "t"}, "domains.py.partition_by: shards with several domains belong under"),
        ({"sources": None}, "sources: missing; dvc.yaml needs it, write `sources: {}`"),
        ({"domains__py__path": None}, "domains.py.path: missing; add it"),
        ({"proxy": None}, "proxy: missing; add it"),
        ({"target__tokens": "5 apples"}, "target.tokens: write a whole number, or a number with k, M, B or T"),
        ({"proxy__size": "16m"}, "proxy.size: no such size; the sizes are 100k, 1m, 15m, 30m, 60m, 190m, or write {"),
        ({"proxy__heads": 2}, "proxy.heads: belongs under proxy.size"),
        ({"proxy__size": [1]}, "proxy.size: no such size"),
        ({"proxy__size": {"layers": 1, "heads": 2, "width": 8}}, "proxy.size.hidden: missing; add it"),
        (
            {"proxy__tokens": "fivex"},
            "proxy.tokens: write a whole number above 0, such as 200k, a multiple, such as 5x, or auto",
        ),
        ({"proxy__tokens": "0x"}, "proxy.tokens: write a multiple above 0, up to 10,000, such as 5x"),
        ({"proxy__tokens": "99999999999x"}, "proxy.tokens: write a multiple above 0, up to 10,000, such as 5x"),
        ({"proxy__tokens": "auto"}, "proxy: tokens: auto is for 15m, 30m, 60m, 190m; write a count"),
        ({"target__tokens": -5}, "target.tokens: input should be greater than 0 (it is -5)"),
        ({"target__repetition": 0}, "target.repetition: input should be greater than 0"),
        ({"solve__kl": float("nan")}, "solve.kl: "),
        ({"validate__seeds": False}, "validate.seeds: input should be a valid integer (it is False)"),
        ({"solve__kl": False}, "solve.kl: input should be a valid number (it is False)"),
        ({"reuse__mode": "half"}, "reuse.mode: input should be 'full' or 'none'"),
        (
            {"domains": {"a": {"path": "x"}}, "descriptions": {}},
            "domains: only a; a mixture needs at least two",
        ),
        ({"domains__-rf": {"path": "x"}}, "'-rf' is not a name"),
        ({"domains__a b": {"path": "x"}}, "'a b' is not a name"),
        ({"domains__аpple": {"path": "x"}}, "is not a name"),
        ({"domains__" + "x" * 300: {"path": "x"}}, "is not a name"),
        ({"objective__weights": {"poetry": 1}}, "objective.weights: poetry: neither a task nor a family"),
        ({"objective__weights": {"code": 0, "math": 0, "prose": 0}}, "all tasks have weight 0"),
        ({"tasks__families": {"a": ["x"], "b": ["x"]}}, "tasks: x: listed twice"),
        ({"domains__py__description": "x"}, "domains.py.description: write descriptions under the top-level key"),
        ({"swarm__concentration": [9, 1]}, "concentration: the first bound must not be above the second"),
    ],
)
def test_mistakes_name_file_key_and_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(HERE.params, params(**changes), Params)
    assert message in str(error.value)
    assert str(error.value).startswith("params.yaml: ")
    assert "\n" not in str(error.value)


def test_a_name_that_is_a_number_asks_for_quotes() -> None:
    content = params()
    content["domains"][2024] = {"path": "data/2024"}
    with pytest.raises(ConfigError, match="2024 is not text; put the name in quotes"):
        check(HERE.params, content, Params)


@pytest.mark.parametrize(
    ("text", "count"),
    [("200k", 200_000), ("1T", 10**12), ("1.5B", 1_500_000_000), ("1e12", 10**12), ("1_000", 1000)],
)
def test_counts_are_written_as_people_write_them(text: str, count: int) -> None:
    assert parse_count(text) == count
    assert check(HERE.params, params(target__tokens=text), Params).target.tokens == count


def test_a_size_has_a_name_or_four_numbers_and_a_budget_may_follow_it() -> None:
    sample = check(HERE.params, params(), Params).recipe(1024)
    spelt = {"layers": 2, "heads": 4, "width": 64, "hidden": 192}
    assert check(HERE.params, params(proxy__size=spelt), Params).recipe(1024) == sample
    for tokens, multiple in (("5x", 5), ("auto", 5), ("0.5X", 0.5)):
        recipe = check(HERE.params, params(proxy__size="15m", proxy__tokens=tokens), Params).recipe(100_000)
        assert recipe.tokens == round(multiple * 20 * recipe.parameters_without_embedding)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other", "data/../../x", "", "a\0b"])
def test_paths_stay_inside_the_project(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be relative and stay inside the project"):
        inside(tmp_path, path, "params.yaml", "domains.x.path")


def test_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project/data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link to a place outside the project"):
        inside(tmp_path / "project", "data", "params.yaml", "domains.x.path")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", r"params.yaml:2: not valid YAML here: duplicate key 'a'"),
        ("a: [1\n", r"params.yaml:\d: not valid YAML here"),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            r"params.yaml:1: not valid YAML here: could not determine",
        ),
        ("- 1\n", r"params.yaml: contains list, not a mapping"),
        ("", r"params.yaml: contains NoneType, not a mapping"),
        ("a: \xff\n".encode("latin-1"), r"params.yaml.*not valid YAML"),
    ],
)
def test_broken_and_hostile_yaml(
    text: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    HERE.params.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message) as error:
        load_params(HERE)
    assert "\n" not in str(error.value)


def test_no_project_here_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"params\.yaml: no such file; run olmix in the root of the project"):
        load_params(HERE)


def test_defaults_are_spelt_out_in_the_sample() -> None:
    """Every section of the model stands in params.yaml: DVC can only watch a leaf that is there."""
    written = yaml.safe_load((REPOSITORY / HERE.params).read_text())
    assert set(written) == {field.alias or name for name, field in Params.model_fields.items()}
    for section in ("swarm", "proxy", "fit", "solve", "validate", "target", "reuse"):
        model = check(HERE.params, written, Params).model_dump(by_alias=True)[section]
        assert set(written[section]) == set(model), section


@given(
    st.text("0123456789.eE+-:_xobnyf~", min_size=1, max_size=7) | st.sampled_from(["no", "On", "YES", "off", "true"])
)
@example("1:30")
@example("1e-3")
@example("-.5")
@example("0o17")
@example("-_")
@example("08")
def test_what_params_may_hold_dvc_reads_alike(text: str) -> None:
    try:
        read = parse_yaml(f"key: {text}\n".encode(), "params.yaml", _OneReadingLoader)
    except ConfigError:
        return
    assert read == YAML(typ="safe").load(f"key: {text}\n")
    assert [type(value) for value in read.values()] == [
        type(value) for value in YAML(typ="safe").load(f"key: {text}\n").values()
    ]


@given(st.text(min_size=1, max_size=12) | st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,7}", fullmatch=True))
@example("1e5")
@example("null")
@example("it's")
def test_a_text_is_written_so_that_both_yamls_read_it(text: str) -> None:
    if any(not (c.isprintable() and c <= "\ud7ff") for c in text):
        return  # no name holds such a character
    line = f"{yaml_text(text)}: {{weight: 1}}\n"
    assert YAML(typ="safe").load(line) == yaml.safe_load(line) == {text: {"weight": 1}}


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("1e5: {path: data/a}", "1e5 differently; write '1e5', or 100000 if it is a number"),
        ("no: {path: data/a}", "no differently; write 'no', or true or false"),
        ("a: {path: 010}", "010 differently; write '010', or 10 if it is a number"),
        ("a: {path: 1:30}", "1:30 differently; write '1:30'"),
        ("a: {path: 1e20}", "1e20 differently; write '1e20', or 1.000000e+20 if it is a number"),
    ],
)
def test_a_scalar_of_two_readings_is_refused_with_the_quotes_to_write(tmp_path: Path, line: str, advice: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"domains:\n  {line}\n")
    with pytest.raises(ConfigError) as raised:
        load_params(Project(tmp_path))
    assert str(raised.value) == f"{path}:2: YAML 1.1 and 1.2 read {advice}"
    text = advice.split("'")[1]
    path.write_text(f"domains:\n  {line.replace(text, repr(text))}\n")
    with pytest.raises(ConfigError, match=r"params.yaml: (?!.*YAML)"):  # other keys are missing
        load_params(Project(tmp_path))
