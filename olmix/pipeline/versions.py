"""Data that git has moved on from: folders that hold an earlier version than the `.dvc` file that git has staged.

After `git pull` or `git checkout`, the data follows only with `dvc checkout`. Without it `dvc repro` takes the folder
for an edit, and writes the old version over a colleague's. An edit is content that git has never had, though; what it
has had, on this branch or another, was most likely left behind.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from olmix.errors import ConfigError, PipelineError
from olmix.files import parse_yaml
from olmix.pipeline import dvc_internals

_MD5 = re.compile(r"^\+- md5: (\S+)$")


def require_chosen(root: Path, folders: Collection[Path], edited: Collection[str] = ()) -> None:
    """Raise PipelineError when one of `folders`, below `root` and under `dvc add`, holds an earlier version than
    git has staged. `edited` are the `.dvc` files, as DVC names them, that DVC finds another content for."""
    files = [file for folder in folders if (file := Path(f"{folder}.dvc")).exists()]
    names = {file.relative_to(root).as_posix(): file for file in files}
    moved = set(_git(root, "diff", "--name-only", "--relative", "--", *names).splitlines()) if names else set()
    for name in sorted(names.keys() & (moved | set(edited))):
        staged = _md5(_git(root, "show", f":./{name}"), name)
        now = dvc_internals.source_hash(root, names[name]) if name in edited else _md5(names[name].read_text(), name)
        if staged is None or now in (staged, None):
            continue
        commit = _commit_with(root, name, str(now))
        if commit:
            folder = name.removesuffix(".dvc")
            raise PipelineError(
                f"its version is that of commit {commit}, not the one that git has staged",
                file=folder,
                way_out=f"run `git checkout {name}` and `dvc checkout {name}` for git's version, or `dvc add {folder}` "
                f"and `git add {name}` to go back to this one",
            )


def require_present(root: Path, folders: Collection[Path], edited: Collection[str]) -> None:
    """Raise PipelineError when a folder under `dvc add` is gone: one of `folders`, or one that nobody declares."""
    for name in sorted(name for name in edited if name.endswith(".dvc")):
        folder = root / name.removesuffix(".dvc")
        if folder.exists():
            continue
        if folder in folders:
            raise PipelineError("not here", file=folder.relative_to(root), way_out="run `dvc pull`")
        raise PipelineError(
            "its folder is gone, and params.yaml declares no such domain",
            file=name,
            way_out=f"run `dvc remove {name}`; if you renamed the folder, also `dvc add` the new one",
        )


def _commit_with(root: Path, name: str, md5: str) -> str:
    """The newest commit, on any branch, that gave a `.dvc` file this content; empty if none did."""
    commit = ""
    for line in _git(root, "log", "--all", "--format=commit %h", "-p", "--", name).splitlines():
        if line.startswith("commit "):
            commit = line.removeprefix("commit ")
        found = _MD5.match(line)
        if found and found[1] == md5:
            return commit
    return ""


def _md5(text: str, name: str) -> str | None:
    """The content that a `.dvc` file names; None for one that names none."""
    try:
        (out,) = parse_yaml(text.encode(), name)["outs"]
        return str(out["md5"])
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def _git(root: Path, *words: str) -> str:
    """What git prints; nothing where it cannot say."""
    try:
        ran = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError:
        return ""
    return ran.stdout if ran.returncode == 0 else ""
