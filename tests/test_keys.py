"""What a stage's result depends on is its key: another version or other parameters, and nothing of before is taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest

from olmix.artifacts.evaluations import read_results
from olmix.artifacts.proxies import read_runs
from olmix.config.fields import check
from olmix.config.keys import VERSIONS, params_for, stage_keys, write_keys
from olmix.config.params import Params
from olmix.errors import DataError, PipelineError
from olmix.files import read_yaml, write_json
from olmix.proxy.recipe import RECIPE_VERSION
from tests.project import ENVIRONMENT, HERE, REPOSITORY, Project, documents, write_task


@pytest.fixture
def upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An olmix whose proxies are others, and that says so; commands of a project run it."""
    package = tmp_path / "upgraded"
    shutil.copytree(REPOSITORY / "olmix", package / "olmix", ignore=shutil.ignore_patterns("__pycache__"))
    recipe, model = package / "olmix/proxy/recipe.py", package / "olmix/proxy/model.py"
    before = f"RECIPE_VERSION = {RECIPE_VERSION}"
    assert before in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(before, f"RECIPE_VERSION = {RECIPE_VERSION + 1}"))
    assert "10_000.0" in model.read_text()
    model.write_text(model.read_text().replace("10_000.0", "50.0"))
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(package))
    return package


def test_an_upgrade_is_said_refused_and_built_anew(accepted: Project, upgraded: Path) -> None:
    """The weights of one version are never measured by another, whatever else changes."""
    weights = {name for name in accepted.outputs() if name.endswith(".safetensors")}
    plan = accepted.command("olmix", "plan", "--exit-code")
    assert plan.code == 2
    assert plan.out.rstrip().endswith(
        "this version of olmix computes evaluate, train, validate differently from the one that wrote build/; to build "
        "again, run `dvc repro -f keys`, then `dvc repro`"
    )
    write_task(accepted.root / "data/tasks/code-task.jsonl", documents("code", 20, version=5))
    ran = accepted.command("dvc", "repro")
    version = RECIPE_VERSION
    assert ran.code != 0
    assert (
        f"error: build/keys/evaluate.json: written by another version of olmix (evaluate 1.{version}; this one is "
        f"1.{version + 1}); run `dvc repro -f keys`, then `dvc repro`\n"
    ) in ran.err
    accepted.write("mixtures/accepted.yaml", "domains: {}\n")
    assert accepted.command("olmix", "accept").err == (
        "error: this version of olmix computes evaluate, train, validate differently from the one that wrote build/; "
        "to build again, run `dvc repro -f keys`, then `dvc repro`\n"
    )
    accepted.dvc("repro", "-q", "-f", "keys")
    ran = accepted.repro()
    assert (ran.done("train"), ran.done("validate")) == (15, 6)
    after = accepted.outputs()
    records = [name for name in after if name.endswith(".json") and name.split("/")[1] in ("proxies", "validation")]
    versions = {orjson.loads(after[name])["version"] for name in records if "version" in orjson.loads(after[name])}
    assert versions == {version + 1}
    assert weights.isdisjoint(after)
    assert accepted.command("olmix", "plan", "--exit-code").code == 0


def test_keys_that_dvc_takes_for_current_are_said_and_the_way_out_works(accepted: Project) -> None:
    """As after a merge that took one side of dvc.lock."""
    params = accepted.params
    params["solve"]["kl"] = 0.3
    accepted.params = params
    lock = (accepted.root / "dvc.lock").read_text()
    assert lock.count("kl: 0.05") == 1
    accepted.write("dvc.lock", lock.replace("kl: 0.05", "kl: 0.3"))
    assert accepted.repro().stages == []
    advice = (
        "the keys in build/keys are out of date for propose, which DVC cannot see (it happens after a merge); "
        "to build again, run `dvc repro -f keys`, then `dvc repro`\n"
    )
    assert accepted.olmix("plan").out.endswith(f"\n{advice}")
    assert accepted.command("olmix", "accept").err == f"error: {advice}"
    accepted.dvc("repro", "-q", "-f", "keys")
    accepted.repro()
    assert accepted.mixture()["certificate"]["kl_weight"] == 0.3


def test_a_change_of_a_parameter_after_an_upgrade_builds_anew_too(accepted: Project, upgraded: Path) -> None:
    params = accepted.params
    params["swarm"]["runs_per_domain"] = 4
    accepted.params = params
    assert accepted.expect("dvc", "repro", "train").done("train") == 20


def test_a_run_of_another_version_or_recipe_is_no_run_here(accepted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(accepted.root)
    params = check(HERE.params, read_yaml(HERE.params), Params)
    recipe = params.recipe(params.load_tokenizer().vocabulary)
    path = min(HERE.proxies.glob("*.json"))
    record = orjson.loads(path.read_bytes())
    assert path.stem in read_runs(HERE, True, recipe)
    for other, message in (
        ({**record, "version": 1}, r"a run of recipe version 1, but this olmix has 2; run `dvc repro -f -s train`"),
        (
            {**record, "recipe": {**record["recipe"], "clip": 2.0}},
            r"trained with another recipe than params.yaml: proxy",
        ),
    ):
        path.chmod(0o644)
        write_json(path, other)
        with pytest.raises(DataError, match=message):
            read_runs(HERE, True, recipe)


def test_evaluations_of_two_versions_of_a_task_are_no_swarm(accepted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(accepted.root)
    coordinates, tasks = ("code", "junk", "math", "web"), ("code-task", "math-task", "web-task")
    assert len(read_results(HERE, coordinates, tasks).runs) == 15
    path = min(HERE.evaluations.glob("*.json"))
    content = orjson.loads(path.read_bytes())
    path.unlink()
    write_json(path, {**content, "version": 1})
    with pytest.raises(DataError, match=r"a run of recipe version 1, but this olmix has 2"):
        read_results(HERE, coordinates, tasks)
    content["tasks"]["math-task"]["identity"] = "of before"
    write_json(path, content)
    with pytest.raises(DataError, match=r"runs were measured on 2 versions of task math-task"):
        read_results(HERE, coordinates, tasks)


def test_a_key_that_is_not_of_these_parameters_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / HERE.params).read_text()
    HERE.params.write_text(text)
    with pytest.raises(PipelineError, match=r"build/keys/fit.json: missing or damaged; run `dvc repro -f keys`"):
        params_for(HERE, "fit")
    write_keys(params_for_text(text))
    params_for(HERE, "fit")
    HERE.params.write_text(text.replace("folds: 5", "folds: 4"))
    params_for(HERE, "plan")
    with pytest.raises(PipelineError, match=r"build/keys/fit.json: out of date for params.yaml"):
        params_for(HERE, "fit")


def params_for_text(text: str) -> Params:
    """The models of a params.yaml."""
    import yaml

    return check(HERE.params, yaml.safe_load(text), Params)


def test_what_means_the_same_is_the_same_key() -> None:
    text = (REPOSITORY / HERE.params).read_text()
    same = text.replace("tokens: 8M", "tokens: 8000000").replace(
        "size: 100k", "size: {layers: 2, heads: 4, width: 64, hidden: 192}"
    )
    assert same != text
    assert stage_keys(params_for_text(same)) == stage_keys(params_for_text(text))


def test_keys_of_domains_that_are_gone_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / HERE.params).read_text()
    write_keys(params_for_text(text))
    assert (HERE.keys / "prepare@junk.json").exists()
    write_keys(params_for_text(text.replace("  junk: {path: data/junk}\n", "")))
    assert not (HERE.keys / "prepare@junk.json").exists()


def test_every_stage_of_the_graph_has_a_key_and_reads_it() -> None:
    stages = read_yaml(REPOSITORY / "dvc.yaml")["stages"]
    assert stages.keys() - {"keys"} == VERSIONS.keys()
    for name in VERSIONS:
        stage = stages[name].get("do", stages[name])
        key = f"{name}@${{key}}" if name in ("prepare", "partition") else name
        assert f"{HERE.keys}/{key}.json" in stage["deps"]
        assert "params" not in stage, "DVC's run-cache does not see all of them"
    assert set(stages["keys"]["params"]) == set(Params.model_json_schema()["properties"]) - {"descriptions"}
