"""The documentation says what the code does: generated pages, printed outputs, links."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel

from olmix.artifacts.mixture_file import read_mixture, write_mixture
from olmix.config.fields import check
from olmix.config.params import Params
from olmix.config.runtime import Runtime
from olmix.core.limits import Target
from olmix.core.plan import Reuse, make_plan
from olmix.errors import ConfigError
from olmix.files import read_json, read_yaml
from olmix.stages.propose import propose
from scripts.docs import GENERATED
from scripts.files_reference import DIAGNOSTICS, FILES, MIXTURE, PLAN, VALIDATION, problems
from scripts.markdown import broken_links
from scripts.outputs import PAGES as WITH_OUTPUT
from scripts.outputs import OutputError, Session, at_hand, blocks, difference, masked, outputs, rewritten
from scripts.words import names_on, unsaid
from tests.project import REPOSITORY, Project
from tests.swarm_tables import Swarm
from tests.test_mixture_file import DATASET, EMPTY, laws
from tests.test_plan import drifted_plan

jsonschema = pytest.importorskip("jsonschema")

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "external/*.md")
    for path in REPOSITORY.glob(pattern)
)
GOLDEN = Path(__file__).parent / "golden"


def schema(name: str) -> Any:
    content = read_json(REPOSITORY / f"docs/schema/{name}.json")
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def refusal(content: object, model: type[BaseModel]) -> ConfigError | None:
    """What olmix says of the content of a file; None when it takes it."""
    try:
        check(Path("file.yaml"), content, model)
    except ConfigError as error:
        return error
    return None


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_what_its_script_writes(name: str) -> None:
    assert (REPOSITORY / name).read_text() == GENERATED[name](), f"{name} is out of date; make docs writes it anew"


def test_the_fields_of_files_are_those_that_are_written(accepted_template: Project, tmp_path: Path) -> None:
    root = accepted_template.root
    swarm = Swarm(tmp_path, noise=0.03)  # so that an older one helps
    searched = swarm.fit("--law", "nearest") and read_yaml(tmp_path / "fit/mixture.yaml")
    swarm.metrics["r00"]["python"] = ""  # a run to set aside
    (tmp_path / "metrics.csv").unlink()
    older = swarm.older()
    off = pl.read_csv(tmp_path / older[1]).with_columns(pl.exclude("run") + 0.3)  # by a constant a task
    off.write_csv(tmp_path / older[1])
    swarm.fit("--law", "auto", "--replicates", "4", "--runs", "12", "--curve", "--also", *older)
    plan = make_plan(DATASET, EMPTY, Reuse())
    limited = propose(plan, laws(plan, [[0.0, 0.0, -9.0]]), {"t0": 1}, Target(1000, 1.7), 0.01)
    write_mixture(tmp_path / "limited.yaml", limited, "")
    mixture = read_mixture(root / "mixtures/accepted.yaml")
    kept = Reuse(keep=(("web", "0123abcd"),))
    write_mixture(tmp_path / "next.yaml", replace(mixture, base=mixture.mixture, reuse=kept), "")
    drifted = propose(drifted_plan(), None, {"t0": 1}, Target(500, 4), 0.01)
    write_mixture(tmp_path / "drifted.yaml", drifted, "")
    found = {
        MIXTURE: {
            "a project's proposal": read_yaml(root / "mixtures/proposed.yaml"),
            "an accepted mixture": read_yaml(root / "mixtures/accepted.yaml"),
            "an accepted mixture that had one before": read_yaml(tmp_path / "next.yaml"),
            "a proposal at its limits": read_yaml(tmp_path / "limited.yaml"),
            "a mixture that was searched for": searched,
            "a proposal of a plan with a drifted domain": read_yaml(tmp_path / "drifted.yaml"),
            "a mixture of olmix fit": read_yaml(tmp_path / "fit/mixture.yaml"),
        },
        PLAN: {"a first plan": read_json(root / "build/plan.json"), "a plan": read_json(GOLDEN / "plan.json")},
        VALIDATION: {"a validation": read_json(root / "build/validation.json")},
        DIAGNOSTICS: {
            "a project's diagnostics": read_json(root / "build/fit/diagnostics.json"),
            "the diagnostics of olmix fit": read_json(tmp_path / "fit/diagnostics.json"),
        },
    }
    assert set(found) == set(FILES)
    assert [line for file, contents in found.items() for line in problems(file, contents)] == []


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("target.tokens", [8_000_000, "8M", "1.5B", "1e12", "1_000k", 1e9], [0, -1, "8 M", "M", "-8M", "8X", 1.5]),
        ("proxy.tokens", ["5x", "0.5X", "200k", 8192], [0, "x", "5xx", "automatic", [5]]),
        ("proxy.size", ["15m", {"layers": 1, "heads": 2, "width": 8, "hidden": 9}], ["15M", 15, {"layers": 1}]),
        ("proxy.external", [True], ["true", 1]),
        ("proxy.learning_rate", [1, 0.5], [0, "0.5"]),
        ("proxy.layers", [], [2]),
        ("swarm.concentration", [[1, 16], [0.5, 2.5]], [[1], [1, 2, 3], [0, 1], 1]),
        ("swarm.runs_per_domain", [3, 1000], [0, 1001, 3.5]),
        ("domains.py.tokens", ["1T", None], ["many"]),
        ("domains.py.format", ["parquet", None], ["csv"]),
        ("domains.py.dtype", ["uint16"], ["int8"]),
        ("domains.py.where", [{"a": 1, "b": ["x", True]}, {}], [{"a": None}, {"a": []}, {"a": 1.5}, ["a"]]),
        ("domains.py.where_not", [{"a": None, "b": ["x", None]}], [{"a": []}, {"a": {}}]),
        ("domains.py.txt", [], ["text"]),
        ("domains.New Name", [], [{"path": "data/new"}]),
        ("descriptions.py", ["Python"], [3]),
        ("sources", [{}, {"web": {"path": "x", "partition_by": "topic"}}], [None, {"web": {"path": "x"}}]),
        ("tasks.families", [{"all": ["a:rc::olmes", "B.c"]}], [{}, {"all": ["a b"]}, {"A": ["a"]}]),
        ("tokenizer.end_of_document", ["<end>", 256], [None, 1.5]),
        ("fit.law", ["auto", "log-linear"], ["loglinear"]),
        ("reuse.mode", ["none"], ["all", None]),
        ("validate.seeds", [0], [-1]),
    ],
)  # fmt: skip
def test_the_schema_of_params_accepts_what_olmix_accepts(key: str, right: list[object], wrong: list[object]) -> None:
    validator = schema("params")
    for value, valid in [*((value, True) for value in right), *((value, False) for value in wrong)]:
        content = copy.deepcopy(read_yaml(REPOSITORY / "params.yaml"))
        content["objective"]["weights"] = {}
        *sections, last = key.split(".")
        reduce(lambda at, name: at[name], sections, content)[last] = value
        assert (refusal(content, Params) is None, validator.is_valid(content)) == (valid, valid), (key, value)


@pytest.mark.parametrize(
    ("content", "right"),
    [
        ({}, True),
        ({"workers": 4, "device": "cuda:1", "flops_per_second": "250T"}, True),
        ({"engine": "slurm", "slurm": {"partition": "gpu", "sbatch": ["--account=lm"]}}, True),
        ({"workers": 0}, False),
        ({"workers": "all"}, False),
        ({"device": "gpu"}, False),
        ({"slurm": {"gpu": 1}}, False),
        ({"engine": "k8s"}, False),
    ],
)
def test_the_schema_of_runtime_accepts_what_olmix_accepts(content: dict[str, object], right: bool) -> None:
    assert (refusal(content, Runtime) is None, schema("runtime").is_valid(content)) == (right, right)


def test_the_files_of_the_repository_are_valid_by_their_schemas() -> None:
    for name in ("params", "runtime"):
        assert list(schema(name).iter_errors(read_yaml(REPOSITORY / f"{name}.yaml"))) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert list(broken_links(REPOSITORY / page)) == []


def test_a_link_that_leads_nowhere_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# `olmix plan`, a (b)\n## Twice\n## Twice\n```\n# no heading\n```\n")
    links = ["other.md#olmix-plan-a-b", "other.md#twice-1", "other.md", "https://example.org/x#y", "#here"]
    wrong = ["other.md#twice-2", "gone.md", "other.md#no-heading", "#there"]
    # The brackets of a text may begin on the line before.
    text = "".join(f"link]({link})\n" for link in [*links, *wrong]) + "# Here\n```\n[code](gone.md)\n```\n`[x](y)`\n"
    (tmp_path / "page.md").write_text(text)
    assert [line.removeprefix(f"{tmp_path}/page.md:") for line in broken_links(tmp_path / "page.md")] == [
        "6: other.md#twice-2: no such heading",
        "7: gone.md: no such file",
        "8: other.md#no-heading: no such heading",
        "9: #there: no such heading",
    ]


# Printed output


@pytest.mark.parametrize("page", WITH_OUTPUT)
def test_a_block_of_output_is_what_its_command_prints(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = (REPOSITORY / page).read_text()
    used = {block.project.partition("/")[0] for block in blocks(text, page)}
    ready = {"small": request.getfixturevalue("accepted_template").root} if "small" in used else {}
    told = [difference(block, now) for block, now in outputs(text, page, Session(tmp_path, ready))]
    assert not any(told), "\n".join(told)


@pytest.mark.parametrize("page", WITH_OUTPUT)
def test_the_output_on_a_page_is_in_words_of_olmix(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    told = [line for block in blocks(text, page) for line in unsaid(block, names_on(text))]
    assert not told, "\n".join([*told, "make docs-output writes blocks anew that are marked as output of a command"])


MARKED = """# A page

<!-- output: new: ls -I "*.jsonl" mixtures -->
```
$ ls -I "*.jsonl" mixtures
accepted.yaml
```

<!-- run: new: echo {} > mixtures/mine.yaml -->
Then
<!-- run: new -->
```
rm mixtures/accepted.yaml
```
<!-- output: new: ls -I "*.jsonl" mixtures -->
```
accepted.yaml
```
<!-- output: new/other: ls mixtures; seq 4 -->
```
...
4
```
<!-- output: new: seq 9 -->
```
0
...
5
6
...
9
```
"""


@pytest.mark.slow
def test_blocks_are_written_anew_in_the_order_of_the_page(tmp_path: Path) -> None:
    told = [difference(block, now) for block, now in outputs(MARKED, "page.md", Session(tmp_path / "a"))]
    assert told[0] == told[2] == ""
    assert told[1].splitlines() == [
        'page.md:15: `ls -I "*.jsonl" mixtures` prints otherwise now; make docs-output writes the block anew',
        "  page.md:17: - accepted.yaml",
        "  + mine.yaml",
    ]
    again = rewritten(MARKED, "page.md", Session(tmp_path / "b"))
    assert again == MARKED.replace("-->\n```\naccepted.yaml", "-->\n```\nmine.yaml").replace("0\n...", "1\n...")


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("<!-- output: new -->\n```\n```", "not a marker"),
        ("<!-- output new: ls -->\n```\n```", "not a marker"),
        ("<!-- output: old: ls -->\n```\n```", "no project 'old'"),
        ("<!-- output: new: ls -->\n\n```\n```", "no fenced block on the next line"),
        ("<!-- run: new -->", "no fenced block on the next line"),
    ],
)
def test_a_marker_that_is_none_is_an_error(marker: str, message: str) -> None:
    with pytest.raises(OutputError, match=f"^page.md:2: {message}"):
        list(blocks(f"# A page\n{marker}\n", "page.md"))


@pytest.mark.slow
def test_a_command_out_of_sight_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"page\.md:1: false: ended with 1"):
        list(outputs("<!-- run: new: false -->\n", "page.md", Session(tmp_path)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Time: 33 s + 44 s, at 47.3 GFLOP/s", "Time: 2 min + 5 h, at 1.25 TFLOP/s"),
        ("web  0.1525  +0.0163  1,276  +████", "web      0.9   -0.2    12,767  -█"),
        ("dataset: bee92ac399dc5543, gap 1.0e-12, +4.2%", "dataset: 5abe30b9f12a6d70, gap 3e-9, -11%"),
    ],
)
def test_what_depends_on_the_machine_is_masked(one: str, other: str) -> None:
    assert masked(one) == masked(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Runs: 9 in the swarm", "Runs: 24 in the swarm"),
        ("0.0943 better", "0.0943 WORSE"),
        ("~ web  revised", "+ web  revised"),
        ("1 binds", "none binds"),
    ],
)
def test_what_does_not_is_compared(one: str, other: str) -> None:
    assert masked(one) != masked(other)


def test_words_that_olmix_does_not_say_are_named_with_their_line() -> None:
    text = """
<!-- words: forum -->
```
Runs: 9 in the swarm (24 without reuse), 12 to validate the proposal; 0 of the swarm's 9 are already trained
  ~ forum  revised, 1,276,686 -> 852,743 tokens
  ~ story  reworked, 1,276,686 -> 852,743 tokens
Measured, 3 fresh seeds: 2.4190 bits per byte ± 0.0054
Measured, 3 fresh seeds: 2.4190 bytes per bit ± 0.0054
```
"""
    told = [line for block in blocks(text, "page.md") for line in unsaid(block, names_on(text))]
    assert [line.partition(" any more")[0] for line in told] == [
        "page.md:6: olmix does not say 'reworked,'",
        "page.md:8: olmix does not say 'bytes per bit ±'",
    ]


def test_the_demo_is_used_where_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OLMIX_DEMO", raising=False)
    page = "<!-- output: demo: ls -->\n```\nold\n```\n"
    assert not at_hand("demo/second")
    assert rewritten(page, "page.md", Session(tmp_path / "a")) == page
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/new").touch()
    monkeypatch.setenv("OLMIX_DEMO", str(tmp_path / "demo"))
    assert rewritten(page, "page.md", Session(tmp_path / "b")) == page.replace("old", "new")
