"""pytest tests/test_style.py: the rules of the house that a linter does not know."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tiny_reasoning_jax"
FOLDERS = (PACKAGE, ROOT / "convert", ROOT / "configs")
SOURCES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py")) + [ROOT / "main.py"]
# Who may import whom: results flow from data and model to eval, never back; convert knows the model alone.
ALLOWED = {
    "answers": {"answers", "errors"},
    "data": {"data", "answers", "checksums", "errors", "foreign", "progress"},
    "model": {"model", "checksums", "errors", "foreign"},
    "train": {"data", "model", "train", "checksums", "errors", "events", "progress", "stop", "workdir", "xla"},
    "plan": {"data", "model", "plan", "train", "errors", "xla"},
    "sampling": {"data", "device", "model", "sampling", "errors"},
    "eval": {"data", "model", "sampling", "eval", "answers", "errors", "events", "progress", "workdir"},
    "convert": {"model", "errors", "foreign", "progress"},
}


def test_files_and_functions_fit_a_mind():
    others = sorted(path for name in ("tests", "benchmarks", ".ci") for path in (ROOT / name).rglob("*.py"))
    assert len(SOURCES) > 20 and len(others) > 20
    for path in SOURCES + others:
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= 70, f"{path}:{node.lineno} {node.name}"


@pytest.mark.parametrize("name", ALLOWED)
def test_imports_run_one_way(name):
    folder = ROOT / name if name == "convert" else PACKAGE / name
    files = sorted(folder.rglob("*.py"))
    assert files
    for path in files:
        imported = set(re.findall(r"^\s*(?:from|import) tiny_reasoning_jax\.(\w+)", path.read_text(), re.M))
        imported |= set(re.findall(r"^\s*from tiny_reasoning_jax import (\w+)", path.read_text(), re.M))
        assert imported <= ALLOWED[name], f"{path} imports {imported - ALLOWED[name]}"


def test_torch_stays_out_of_the_package():
    for path in SOURCES:
        if path.name != "check.py":  # the converter's comparison with transformers, where torch is installed
            assert not re.search(r"^\s*(import|from) torch", path.read_text(), re.M), path


def test_the_readme_names_what_exists():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`((?:tests|benchmarks|configs|convert|tiny_reasoning_jax)/[\w/.]+)`", text):
        assert (ROOT / name).exists() or (PACKAGE / name).exists(), name
    tree = text.split("## Rooms")[1].split("## ")[0]
    for folder in (p.name for p in PACKAGE.iterdir() if p.is_dir() and not p.name.startswith("_")):
        assert f"{folder}/" in tree, folder
