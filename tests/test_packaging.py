"""The wheel: what is in it, and that it works without the checkout."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "profilers", "device_farm", "recipes", "search")
HEAVY = ("torch", "numpy", "scipy", "sqlalchemy", "pydantic", "paramiko", "optuna", "matplotlib", "ai_edge_litert",
         "xgboost")
EXTRA = ("torch", "litert_torch", "ai_edge_litert", "ai_edge_quantizer", "onnx")
NOT_IMPORTED = {"demo", "__main__.py", "env.py", "versions"}
"""The demo networks are torch code, `__main__` runs the agent, Alembic runs its environment and its steps."""
MAX_HELP_CPU_S = 0.5
MAX_WHEEL_BYTES = 12_000_000


@dataclass(frozen=True, slots=True)
class Wheel:
    """A built wheel, and a folder that it is installed in."""

    path: Path
    site: Path

    @property
    def names(self) -> set[str]:
        with zipfile.ZipFile(self.path) as archive:
            return set(archive.namelist())

    def metadata(self, name: str) -> str:
        with zipfile.ZipFile(self.path) as archive:
            (found,) = [entry for entry in archive.namelist() if entry.endswith(f".dist-info/{name}")]
            return archive.read(found).decode()

    def python(self, code: str, cwd: Path) -> Any:
        """Run code outside the checkout, with the installed packages first; return the JSON that it prints last."""
        code = f"import sys; sys.path.insert(0, {str(self.site)!r})\n{code}"
        done = subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """Build from a copy: a build folder of the checkout would bring deleted files along."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info"))
    run("build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(source))
    (path,) = (folder / "dist").iterdir()
    site = folder / "site"
    run("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(path))
    return Wheel(path, site)


def run(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_five_packages_and_nothing_else_are_on_top(wheel: Wheel) -> None:
    tops = {name.split("/")[0] for name in wheel.names}
    (metadata,) = tops - set(PACKAGES)
    assert metadata.startswith("hil_orchestrator-") and metadata.endswith(".dist-info")
    assert tops - {metadata} == set(PACKAGES)


def test_every_module_and_no_leftover_is_in_it(wheel: Wheel) -> None:
    sources = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in wheel.names if name.endswith(".py")} == sources
    assert not [name for name in wheel.names if "__pycache__" in name or "tests/" in name]


def test_what_is_no_code_is_in_it(wheel: Wheel) -> None:
    demo = {f"recipes/demo/{name}" for name in
            ("fashion_mnist.npz", "residual.pt", "separable.pt", "transformer.pt", "NOTICE.md")}
    migrations = {f"orchestrator/store/migrations/{name}" for name in
                  ("env.py", "script.py.mako", "versions/0001_the_first_tables.py", "versions/0002_board_deaths.py",
                   "versions/0003_cost_models.py")}
    assert demo | migrations | {f"{package}/py.typed" for package in PACKAGES} <= wheel.names
    assert wheel.path.stat().st_size <= MAX_WHEEL_BYTES


def test_the_metadata_have_ranges_licences_and_the_command(wheel: Wheel) -> None:
    metadata = Parser().parsestr(wheel.metadata("METADATA"))
    assert metadata["Name"] == "hil-orchestrator"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("License-File", [])) == {"LICENSE", "THIRD_PARTY_NOTICES.md", "recipes/demo/NOTICE.md"}
    requirements = metadata.get_all("Requires-Dist", [])
    assert requirements and not [one for one in requirements if "==" in one.split(";")[0]]
    assert not [one for one in requirements if one.startswith("torch") and "extra ==" not in one]
    assert "orchestrator = orchestrator.cli.app:main" in wheel.metadata("entry_points.txt")


def test_the_notices_name_every_direct_dependency(wheel: Wheel) -> None:
    requirements = Parser().parsestr(wheel.metadata("METADATA")).get_all("Requires-Dist", [])
    words = set(re.findall(r"[\w.-]+", (ROOT / "THIRD_PARTY_NOTICES.md").read_text()))
    assert not {re.findall(r"^[\w.-]+", one)[0] for one in requirements} - words


def test_all_five_import_outside_the_checkout(wheel: Wheel, tmp_path: Path) -> None:
    files = wheel.python(
        f"import importlib, json\nprint(json.dumps([importlib.import_module(p).__file__ for p in {PACKAGES!r}]))",
        tmp_path)
    assert files == [str(wheel.site / package / "__init__.py") for package in PACKAGES]


def test_every_module_imports_without_torch(wheel: Wheel, tmp_path: Path) -> None:
    modules = sorted(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in wheel.names
                     if name.endswith(".py") and not NOT_IMPORTED & set(name.split("/")))
    loaded = wheel.python(
        f"import importlib, json\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted(set({EXTRA!r}) & set(sys.modules))))", tmp_path)
    assert loaded == []


def test_help_is_quick_and_imports_nothing_heavy(wheel: Wheel, tmp_path: Path) -> None:
    code = f"""
import json, time
from orchestrator.cli.app import main
sys.argv = ["orchestrator", "--help"]
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(set({HEAVY!r}) & set(sys.modules)), time.process_time()]))
"""
    runs = [wheel.python(code, tmp_path) for _ in range(3)]
    assert [run[:2] for run in runs] == [[0, []]] * 3
    assert min(run[2] for run in runs) < MAX_HELP_CPU_S
