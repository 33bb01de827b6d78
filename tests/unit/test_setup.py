"""The set-up behind `make`: interpreters, environments, locks, and what the wheel holds."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


environment = script("environment")


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that a version manager installed but did not select is found behind it."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    executable(tmp_path / "shims" / name, "exit 127")
    real = executable(tmp_path / "versions" / "x" / "bin" / name, f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    assert environment.interpreters() == {sys.version_info[:2]: real}


def test_the_first_python_that_runs_is_chosen(tmp_path: Path) -> None:
    """A broken one, or one that is too old, does not end the search; none at all ends it with a sentence."""
    executable(tmp_path / "python3.11", "exit 127")
    executable(tmp_path / "python3.12", "echo 3.9 >&2; exit 1")
    command = ["/bin/sh", str(ROOT / "scripts" / "find-python.sh")]
    found = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "No Python 3.11, 3.12 or 3.13" in found.stderr
    executable(tmp_path / "python3", f'exec {sys.executable} "$@"')
    found = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert Path(found.stdout.strip()).exists()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_every_package_with_hashes_and_names_no_address(lock: Path) -> None:
    """Where packages come from is the machine's business."""
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    for requirement in re.split(r"\n(?=\w)", text.strip()):
        assert re.match(r"[\w.-]+==[\w.]+( ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", requirement), (
            requirement
        )


def test_locks_agree_with_each_other() -> None:
    """What is tested is what runs."""
    versions: dict[str, dict[str, str]] = {}
    for lock in LOCKS:
        for name, version, marker in re.findall(
            r"^([\w.-]+)==(\S+)( ; [^\\]+)? ", lock.read_text(), re.MULTILINE
        ):
            versions.setdefault(name + marker, {})[lock.stem] = version
    assert not {name: found for name, found in versions.items() if len(set(found.values())) > 1}


def test_every_dependency_of_the_project_is_locked() -> None:
    """A dependency added without `make lock` would be missing on a fresh machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    of_locks = {
        "run": project["project"]["dependencies"],
        "test": [*groups["test"], *groups["build"]],
        **{name: wanted for name, wanted in groups.items() if name != "test"},
        **project["project"]["optional-dependencies"],
    }
    assert of_locks.keys() == {lock.stem for lock in LOCKS}
    for lock, wanted in of_locks.items():
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        for requirement in wanted:
            if isinstance(requirement, str):
                name = re.split(r"[^\w.-]", requirement)[0]
                assert re.search(rf"^{re.escape(name)}==", text, re.MULTILINE), (lock, name)


#: What makes, tests or shows the project: none of it runs with it.
TOOLS = re.compile(
    r"pytest|xdist|hypothesis|mkdocs|mypy(?!-extensions)|ruff|lint|docker|testcontainers|jinja|babel|hatch|"
    r"matplotlib|numpy|trustme|cryptography|opentelemetry|cronsim|uv$"
)
#: Packages of a group that something which runs needs too.
ALSO_RUN = {"psutil": "jgo"}


#: What `make run` installs beside a worker's packages: 36 MB, in which the page and the history are.
OF_THE_CONSOLE = {
    "alembic", "cffi", "cryptography", "fastapi", "jinja2", "joserfc", "mako", "markupsafe",
    "opentelemetry-api", "psycopg", "psycopg-binary", "pycparser", "sqlalchemy",
}  # fmt: skip


def test_make_run_installs_no_tools() -> None:
    """Whoever tries it does not wait for what only its makers need."""
    make = ["make", "--dry-run", "run", f"PYTHON={sys.executable}"]
    bare = {"PATH": os.environ["PATH"]}  # nothing of a make that runs this test
    shown = subprocess.run(make, cwd=ROOT, env=bare, capture_output=True, text=True, check=True).stdout
    assert "scripts/run.py .venv" in shown
    assert "requirements" not in shown, "the script names the lock"
    text = (ROOT / "scripts" / "run.py").read_text("utf-8")
    assert re.findall(r'"(\w+\.txt)"', text) == ["console.txt"]
    locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    tools = {
        re.split(r"[^\w.-]", one)[0] for group in groups.values() for one in group if isinstance(one, str)
    }
    assert set(locked) & tools <= set(ALSO_RUN)
    assert [name for name in locked if TOOLS.search(name)] == []
    with_console = re.findall(
        r"^([\w.-]+)==", (ROOT / "requirements" / "console.txt").read_text(), re.MULTILINE
    )
    assert set(locked) <= set(with_console)
    assert set(with_console) - set(locked) == OF_THE_CONSOLE


def test_the_wheel_is_complete(tmp_path: Path) -> None:
    """Types, topics and the embedded broker's locks are in it; tests are not."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "delaystream").rglob("*.py")}
    locks = {str(path.relative_to(ROOT)) for path in (ROOT / "delaystream" / "dev" / "locks").iterdir()}
    assert sources | locks | {"delaystream/py.typed", "delaystream/topics/topics.json"} <= names
    assert not [name for name in names if not name.startswith("delaystream")]


def test_the_wheel_runs_without_the_source_tree(tmp_path: Path) -> None:
    """Nothing is looked for beside the package."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    run = "import sys; sys.path.insert(0, sys.argv[1]); from delaystream.cli import main; import delaystream;"
    run += "print(delaystream.__file__); sys.exit(main(['topics', 'print']))"
    command = [sys.executable, "-P", "-c", run, str(tmp_path / "site")]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(str(tmp_path))
    assert "delay-wheel-changelog" in shown
