"""The command line from outside: exit codes, one line for a mistake, JSON for scripts, help for every command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import click
import pytest
import yaml

from olmix.cli.main import cli
from olmix.cli.plan import from_project
from olmix.core.digest import to_hex
from olmix.core.seeds import named_key
from olmix.data import sample
from tests.project import HERE, REPOSITORY, Project, documents, write_shards


def test_every_command_has_help_and_stands_in_the_docs() -> None:
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    docs = "\n".join(page.read_text() for page in pages)
    for name, command in cli.commands.items():
        assert command.help, name
        assert f"olmix {name}" in docs, name
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.help, f"{name}: {parameter.name}"


def test_show_leads_with_what_was_measured(accepted_template: Project) -> None:
    text = accepted_template.olmix("show").out
    assert text.startswith("Measured, 2 fresh seeds: ")
    assert text.index("better than the natural mixture") < text.index("domain") < text.index("Predicted by the law")
    content = json.loads(accepted_template.olmix("show", "--json").out)
    assert content["validation"]["natural"]["gain_of_proposal"]["bpb"] > 0
    assert content["domains"]["web"]["weight"] == accepted_template.weights()["web"]


def numbers(text: str) -> tuple[str, list[float]]:
    """A text without its numbers, and these."""
    return re.sub(r"[\d.]+", "#", text), [float(n) for n in re.findall(r"\d+\.?\d*", text)]


def test_an_accepted_mixture_carries_its_measurement_with_it(accepted: Project) -> None:
    measured = accepted.mixture("accepted")["measured"]
    assert {"bpb", "standard_error", "seeds", "gain_over_natural", "gain_over_natural_standard_error"} <= set(measured)
    by_validation = accepted.olmix("show", "mixtures/accepted.yaml").out
    assert by_validation.startswith("Measured, 2 fresh seeds: ")
    (accepted.root / "build/validation.json").unlink()
    (shape, found), (expected_shape, expected) = map(
        numbers, (accepted.olmix("show", "mixtures/accepted.yaml").out, by_validation)
    )
    assert shape == expected_shape
    assert found == pytest.approx(expected, abs=1.01e-4)  # recorded in six decimals, shown in four


def test_a_revision_shows_what_was_measured_of_it_then(accepted: Project) -> None:
    then = accepted.olmix("show").out
    measured = then[: then.index("\n\n")]
    validation = accepted.json("build/validation.json")
    moved = accepted.mixture()
    moved["domains"]["web"]["weight"] -= 0.1
    moved["domains"]["math"]["weight"] += 0.1
    accepted.write("mixtures/proposed.yaml", yaml.safe_dump(moved))
    (accepted.root / "build/validation.json").write_text("{}")
    assert accepted.olmix("show", "HEAD").out.startswith(measured)
    assert json.loads(accepted.olmix("show", "HEAD", "--json").out)["validation"] == validation
    assert measured in accepted.olmix("diff", "mixtures/proposed.yaml", "HEAD").out
    # Another mixture of that revision was not what was measured then.
    accepted.commit("moved by hand")
    unmeasured = "HEAD:mixtures/proposed.yaml contains no measurement.\n"
    assert accepted.olmix("show", "HEAD").out.startswith(unmeasured)
    # Nothing is fetched: without the cache there is only what the file says.
    shutil.rmtree(accepted.root / ".dvc/cache")
    assert accepted.olmix("show", "HEAD~1").out.startswith("HEAD~1:mixtures/proposed.yaml contains no measurement")
    assert accepted.olmix("show", "HEAD~1:mixtures/accepted.yaml").out.startswith("Measured, 2 fresh seeds: ")


def test_diff_of_files_and_revisions(accepted: Project) -> None:
    accepted.git("tag", "first")
    moved = accepted.mixture()
    moved["domains"]["web"]["weight"] += 0.1
    moved["domains"]["math"]["weight"] -= 0.1
    accepted.write("other.yaml", yaml.safe_dump(moved))
    content = json.loads(accepted.olmix("diff", "first", "other.yaml", "--json").out)
    assert content["total_variation"] == pytest.approx(0.1)
    assert content["domains"]["web"]["change"] == pytest.approx(0.1)
    same = json.loads(accepted.olmix("diff", "HEAD:mixtures/accepted.yaml", "--json").out)
    assert same["total_variation"] == 0
    text = accepted.olmix("diff", "first", "other.yaml").out
    assert "~ web" in text
    assert "= code" in text
    assert "Total variation 0.1000" in text


def test_plan_takes_the_errors_of_estimates_from_the_manifests(
    accepted: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(accepted.root / "data/web", documents("web", version=1))
    monkeypatch.chdir(accepted.root)
    monkeypatch.setattr(sample, "ESTIMATED_FROM", 1000)
    view = from_project(HERE, None)
    true = sum(len(text.encode()) + 1 for text in documents("web", version=1))
    assert list(view.token_errors) == ["web"]
    error = view.token_errors["web"]
    assert error and abs(view.plan.dataset.domains["web"].tokens - true) < 3 * error
    assert f" ± {error:,} tokens\n" in view.to_text()


def test_plan_says_that_another_tokeniser_revises_every_domain(accepted: Project) -> None:
    content = json.loads((accepted.root / "tokenizers/bytes.json").read_text())
    content["model"]["vocab"]["th"] = len(content["model"]["vocab"])
    content["model"]["merges"].append(["t", "h"])
    accepted.write("tokenizers/bytes.json", json.dumps(content))
    text = accepted.olmix("plan").out
    web = documents("web")
    before = sum(len(text) + 1 for text in web)
    after = before - sum(text.count("th") for text in web)
    assert f"~ web   revised, {before:,} -> {after:,} tokens\n" in text
    assert "\nAffected: code, junk, math, web\nVirtual domain: none\n" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["diff", "nowhere"], "error: nowhere: neither a mixture file nor a git revision"),
        (["diff", "--", "--help"], "error: --help: neither a mixture file nor a git revision"),
        (["plan", "--dataset", "none.json"], "error: none.json: no such file"),
        (["plan", "--runs-per-domain", "1"], "these options need --dataset"),
        (["plot"], "No such command 'plot'"),
    ],
)
def test_mistakes_exit_with_1_and_without_a_traceback(
    accepted_template: Project, words: list[str], message: str
) -> None:
    ran = accepted_template.command("olmix", *words)
    assert ran.code == 1
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_mistake_in_params_is_one_line_everywhere(accepted: Project) -> None:
    params = accepted.params
    params["swarm"]["runs_per_domian"] = params["swarm"].pop("runs_per_domain")
    accepted.params = params
    for words in (["olmix", "plan"], ["olmix", "show"], ["python", "stages/swarm.py"]):
        ran = accepted.command(*words)
        assert ran.code == 1
        assert ran.err.startswith(
            "error: params.yaml: swarm.runs_per_domian: unknown key; did you mean runs_per_domain?"
        )
        assert ran.err.count("\n") == 1


def test_a_dataset_that_is_only_described_is_planned_from_the_accepted_mixture(
    accepted: Project, tmp_path: Path
) -> None:
    domains = accepted.json("build/plan.json")["domains"]
    domains["web"]["digest"] = "0" * 31 + "1"
    dataset = tmp_path / "dataset.json"
    dataset.write_text(json.dumps(domains))
    text = accepted.olmix("plan", "--dataset", str(dataset)).out
    assert text.startswith("Plan against mixtures/accepted.yaml\n")
    assert "= 3 unchanged: code, junk, math" in text
    accepted.write("mixtures/accepted.yaml", "domains: {}\n")
    text = accepted.olmix("plan", "--dataset", str(dataset)).out
    assert text.startswith("Plan for a first mixture (mixtures/accepted.yaml is empty)\n")
    (accepted.root / "mixtures/accepted.yaml").unlink()
    assert accepted.olmix("plan", "--dataset", str(dataset)).out.startswith("Plan for a first mixture\n")


def test_limits_that_cannot_be_met_are_said_before_anything_is_trained(accepted: Project) -> None:
    params = accepted.params
    params["target"] = {"tokens": "1B", "repetition": 4}
    accepted.params = params
    ran = accepted.command("olmix", "plan")
    assert ran.code == 1
    assert "1,000,000,000 tokens cannot be drawn with repetition 4" in ran.err
    params["swarm"]["seed"] = 9
    accepted.params = params
    ran = accepted.command("dvc", "repro")
    assert (ran.code != 0, ran.stages[-1], ran.done("train")) == (True, "train", 0)
    assert "cannot be drawn with repetition 4" in ran.err
    write_shards(accepted.root / "data/web", documents("web", version=1))
    ran = accepted.command("dvc", "repro")
    assert ran.code != 0
    assert ran.stages == ["prepare@web", "plan"]
    assert "cannot be drawn with repetition 4" in ran.err


def test_a_task_without_text_is_said_before_anything_is_trained(accepted: Project) -> None:
    accepted.write("data/tasks/web-task.jsonl", '{"prompt": "a", "continuation": ""}\n')
    ran = accepted.command("olmix", "plan")
    assert ran.code == 1
    assert "data/tasks/web-task.jsonl:1: the continuation is empty" in ran.err


def test_plan_from_files_alone(tmp_path: Path) -> None:

    from tests.project import Ran

    digest = {name: to_hex(named_key(name)) for name in "abcd"}
    old = {
        "domains": {
            n: {"weight": w, "tokens": 100, "digest": digest[n]} for n, w in zip("abc", (0.5, 0.3, 0.2), strict=True)
        }
    }
    (tmp_path / "OLD.yaml").write_text(yaml.safe_dump(old))
    new = {n: {"digest": digest[n], "tokens": 100, "source": n} for n in "abd"}
    (tmp_path / "NEW.json").write_text(json.dumps(new))

    def plan(*words: str) -> Ran:
        return Project(tmp_path).command("olmix", "plan", "--dataset", "NEW.json", *words)

    content = json.loads(plan("--accepted", "OLD.yaml", "--json", "--runs-per-domain", "1").out)
    assert [c["kind"] for c in content["changes"]] == ["remove", "add"]
    assert content["affected"] == ["d"]
    assert content["virtual"]["members"] == pytest.approx({"a": 0.625, "b": 0.375})
    assert (content["runs"], content["runs_without_reuse"]) == (3, 4)
    capped = json.loads(plan("--accepted", "OLD.yaml", "--json", "--target-tokens", "500", "--repetition", "2").out)
    assert capped["virtual"]["capacity"] == pytest.approx(0.4 / 0.625)
    assert json.loads(plan("--json").out)["runs"] == 12
    assert json.loads(plan("--accepted", "OLD.yaml", "--recompute", "a", "--json").out)["affected"] == [
        "a",
        "d",
    ]
    assert json.loads(plan("--accepted", "OLD.yaml", "--no-reuse", "--json").out)["virtual"] is None
    assert plan("--accepted", "OLD.yaml", "--exit-code").code == 2
    (tmp_path / "NEW.json").write_text(json.dumps({n: {"digest": digest[n], "tokens": 100} for n in "abc"}))
    assert plan("--accepted", "OLD.yaml", "--exit-code").code == 0
    (tmp_path / "NEW.json").write_text('{"a": {"digest": "xyz", "tokens": 5}}')
    ran = plan()
    assert (ran.code, ran.err) == (
        1,
        "error: NEW.json: a: digest 'xyz' is not 128 bits in hexadecimal; write up to 32 digits\n",
    )


def test_diff_tells_a_rename_by_content(accepted: Project) -> None:
    renamed = accepted.mixture()
    renamed["domains"]["pages"] = renamed["domains"].pop("web")
    accepted.write("other.yaml", yaml.safe_dump(renamed))
    content = json.loads(accepted.olmix("diff", "mixtures/proposed.yaml", "other.yaml", "--json").out)
    assert content["total_variation"] == 0
    assert content["domains"]["pages"]["renamed_from"] == "web"
    assert "= web -> pages" in accepted.olmix("diff", "mixtures/proposed.yaml", "other.yaml").out
