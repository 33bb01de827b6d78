"""docker-compose.yml: valid by Compose's own library, and at one with the files that it names."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import ROOT, Tool
from tests.deploy.monitoring.stage import compose
from tests.deploy.monitoring.test_monitoring_dashboards import DASHBOARDS, load

FILE = ROOT / "docker-compose.yml"
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"


def checked(tool: Tool, text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """What compose-go says of a file."""
    path = directory / "docker-compose.yml"
    path.write_text(text)
    command: list[str | Path] = [tool("compose"), "-format", "json", path]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_compose_takes_the_file(tool: Tool, tmp_path: Path) -> None:
    done = checked(tool, FILE.read_text(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"].keys() == compose()["services"].keys()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read_only: true", "readonly: true"),
        ("condition: service_healthy", "condition: service_is_healthy"),
        ("cap_drop: [ALL]", "cap_drop: ALL"),
        ('"127.0.0.1:3000:3000"', '"127.0.0.1:3000:http"'),
    ],
)
def test_compose_refuses_what_is_misspelt(tool: Tool, tmp_path: Path, right: str, wrong: str) -> None:
    """The check above can fail."""
    text = FILE.read_text()
    assert right in text
    assert checked(tool, text.replace(right, wrong), tmp_path).returncode != 0


def test_what_is_waited_for_is_there_and_can_happen() -> None:
    """Compose's library takes names of services that do not exist."""
    services = compose()["services"]
    for name, service in services.items():
        waited = service.get("depends_on", {})
        for other, condition in waited.items() if isinstance(waited, dict) else []:
            assert other in services, f"{name} waits for {other}"
            if condition["condition"] == "service_completed_successfully":
                assert "restart" not in services[other], f"{other} never completes"
            else:
                assert "test" in services[other]["healthcheck"], f"{other} has no health check"


def test_what_is_published_is_on_loopback() -> None:
    """There is no password in it."""
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_images_are_pinned() -> None:
    """Ours is built here; the others have a version, Kafka that of the embedded broker."""
    for name, service in compose()["services"].items():
        if service.get("build") is None:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"]), name
    version = compose()["services"]["kafka"]["image"].partition(":")[2]
    assert (ROOT / "delaystream" / "dev" / "locks" / f"kafka-{version}.lock").exists()
    schema = json.loads((Path(__file__).parent / "grafana" / "package.json").read_text())
    assert compose()["services"]["grafana"]["image"].endswith(schema["devDependencies"]["@grafana/schema"]), (
        "the types are not those of this Grafana"
    )


def test_every_file_that_is_mounted_is_there() -> None:
    for name, service in compose()["services"].items():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert mount.endswith(":ro"), f"{name}: {mount}"
            else:
                assert source in compose()["volumes"], f"{name}: {source}"


def test_our_containers_have_a_read_only_root_and_no_rights() -> None:
    for name in ("worker-1", "worker-2", "console", "topics", "producer", "consumer"):
        service = compose()["services"][name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_the_console_is_reached_from_this_machine_alone() -> None:
    """It asks nobody who they are: it listens on loopback, which is this machine's, and finds Kafka there."""
    console = compose()["services"]["console"]
    assert console["network_mode"] == "host"
    assert "ports" not in console
    assert not [name for name in console["environment"] if name.endswith("HTTP_HOST")]
    published = compose()["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"OUTSIDE://{console['environment']['DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS']}" in published


def test_each_worker_has_a_volume_of_its_own() -> None:
    """Two on one data directory: the second would not start."""
    (first,) = compose()["services"]["worker-1"]["volumes"]
    (second,) = compose()["services"]["worker-2"]["volumes"]
    assert first != second
    assert {first.partition(":")[2], second.partition(":")[2]} == {"/var/lib/delaystream"}
    assert "DELAYSTREAM_DATA_DIR=/var/lib/delaystream" in (ROOT / "Dockerfile").read_text()


def test_prometheus_scrapes_every_worker() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    (static,) = job["static_configs"]
    workers = [
        name for name, service in compose()["services"].items() if service.get("command") == ["worker"]
    ]
    assert static["targets"] == [f"{name}:8642" for name in workers]
    assert len(workers) == 2


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    grafana = compose()["services"]["grafana"]
    mounts = dict(mount.removesuffix(":ro").split(":")[::-1] for mount in grafana["volumes"])
    assert ROOT / mounts["/etc/grafana/provisioning"] == PROVISIONING
    (provider,) = _yaml(PROVISIONING / "dashboards" / "delaystream.yml")["providers"]
    directory = provider["options"]["path"]
    assert ROOT / mounts[directory] == DASHBOARDS[0].parent
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == directory
    assert home.name in {path.name for path in DASHBOARDS}
    (source,) = _yaml(PROVISIONING / "datasources" / "prometheus.yml")["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert compose()["services"][host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    interval = _yaml(ROOT / "deploy" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    for path in DASHBOARDS:
        (variable,) = [v for v in load(path)["templating"]["list"] if v["name"] == "datasource"]
        assert variable["query"] == source["type"]


def test_what_workers_may_write_to_is_created() -> None:
    (script,) = compose()["services"]["destinations"]["command"]
    created = script.partition(" in ")[2].partition(";")[0].split()
    allowed = compose()["services"]["worker-1"]["environment"]["DELAYSTREAM_DESTINATIONS_ALLOW"]
    assert created == allowed.split(",")


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
