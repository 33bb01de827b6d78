"""What `delaystream topics print` prints is taken by the tools that it is for, and does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from delaystream.config import Settings
from delaystream.dev.jars import DEFAULT_VERSION, Lock, class_path, kafka_lock
from delaystream.dev.java import find_java
from delaystream.topics import Role, check, connect, plan, users
from tests.deploy.conftest import ROOT, Tool
from tests.deploy.secured_broker import SecuredBroker
from tests.integration.harness import command

CRDS = ROOT / "tests" / "deploy" / "schemas" / "crds"
KAFKA_TOOLS = ROOT / "tests" / "integration" / "kafka-tools-4.3.1.lock"
CLASSES = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
}
ROLES: dict[Role, str] = {
    "worker": "worker",
    "requester": "requester",
    "reader": "reader",
    "console": "console",
    "operator": "operator",
}


def settings_named(app_id: str) -> Settings:
    return Settings(
        app_id=app_id,
        request_topics=(f"{app_id}.Requests_1", f"{app_id}.requests-2"),
        commands_topic=f"{app_id}.commands",
        changelog_topic=f"{app_id}.changelog",
        events_topic=f"{app_id}.events",
        dead_letters_topic=f"{app_id}.dead-letters",
        receipts_topic=f"{app_id}.receipts",
        destinations_allow=(f"{app_id}.out", f"{app_id}.more-*", f"{app_id}.[ab]"),
    )


def printed(settings: Settings, form: str, *arguments: str) -> str:
    """What the command prints for these settings, for one broker and two partitions."""
    pairs = {
        "app_id": settings.app_id,
        "request_topics": ",".join(settings.request_topics),
        "commands_topic": settings.commands_topic,
        "changelog_topic": settings.changelog_topic,
        "events_topic": settings.events_topic,
        "dead_letters_topic": settings.dead_letters_topic,
        "receipts_topic": settings.receipts_topic,
        "destinations_allow": ",".join(settings.destinations_allow),
    }
    options = [option for name, value in pairs.items() for option in ("--set", f"{name}={value}")]
    options += [option for role, name in ROLES.items() for option in ("--user", f"{role}={name}")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DELAYSTREAM_")}
    options += ["--environment", "single-node", "--partitions", "2", *arguments]
    done = subprocess.run(
        command("topics", "print", "--format", form, *options),
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with SecuredBroker(tmp_path_factory.mktemp("printed"), ROLES.values()) as broker:
        yield broker


def assert_topics(broker: SecuredBroker, settings: Settings) -> None:
    """They are there, and `check` finds no difference."""
    admin = connect({"bootstrap.servers": broker.broker.bootstrap_servers})
    specs = plan(settings, partitions=2, environment="single-node")
    assert check(admin, specs, exact_partitions=True) == []
    assert {broker.kafka.partitions(spec.name) for spec in specs} == {2}


def assert_acls(broker: SecuredBroker, settings: Settings) -> None:
    """Each user has the rights of the role, and no other on this application's names."""
    for user in users(settings, ROLES):
        expected = {(acl.resource, acl.name, acl.prefixed, acl.operation) for acl in user.acls}
        found = broker.rights(user.name)
        shared = {right for right in found if settings.app_id in right[1]}
        assert shared == {right for right in expected if settings.app_id in right[1]}
        assert expected <= found


# -- Strimzi ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("authentication", ["scram-sha-512", "tls"])
def test_strimzis_manifests_fit_its_schemas(tool: Tool, tmp_path: Path, authentication: str) -> None:
    """Strictly: no unknown key, no missing one."""
    settings = settings_named("app")
    text = printed(
        settings, "strimzi", "--cluster", "events", "--namespace", "kafka", "--authentication", authentication
    )
    file = tmp_path / "strimzi.yaml"
    file.write_text(text)
    schemas = str(CRDS / "{{.ResourceKind}}{{.KindSuffix}}.json")
    checked = subprocess.run(
        [tool("kubeconform"), "-strict", "-summary", "-output", "json", "-schema-location", schemas, file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    specs = plan(settings)
    assert json.loads(checked.stdout)["summary"] == {
        "valid": len(specs) + len(users(settings, ROLES)), "invalid": 0, "errors": 0, "skipped": 0,
    }  # fmt: skip
    documents = list(yaml.safe_load_all(text))
    topics = [document for document in documents if document["kind"] == "KafkaTopic"]
    assert [topic["spec"]["topicName"] for topic in topics] == [spec.name for spec in specs]
    assert all(re.fullmatch(r"[a-z0-9.-]+", document["metadata"]["name"]) for document in documents)
    assert len({document["metadata"]["name"] for document in documents}) == len(documents)
    specs_of_users = [document["spec"] for document in documents if document["kind"] == "KafkaUser"]
    for user, spec in zip(users(settings, ROLES), specs_of_users, strict=True):
        assert spec["authentication"] == {"type": authentication}
        rights = {
            (acl["resource"]["type"].replace("transactionalId", "transactional-id"), acl["resource"]["name"],
             acl["resource"]["patternType"] == "prefix", operation)
            for acl in spec["authorization"]["acls"] for operation in acl["operations"]
        }  # fmt: skip
        assert rights == {(acl.resource, acl.name, acl.prefixed, acl.operation) for acl in user.acls}


# -- Kafka's own scripts ---------------------------------------------------------------------------------


@pytest.mark.timeout(400)  # each line starts a Java of its own
def test_the_scripts_lines_make_topics_and_acls(broker: SecuredBroker, tmp_path: Path) -> None:
    """Run by the classes behind kafka-topics.sh and kafka-acls.sh; twice, as an installation is repeated."""
    settings = settings_named("scripts")
    servers = broker.broker.bootstrap_servers
    lines = printed(settings, "kafka-topics", "-b", servers).splitlines()
    lines += printed(settings, "kafka-acls", "-b", servers).splitlines()
    tools = dict.fromkeys([*class_path(Lock.read(KAFKA_TOOLS)), *class_path(kafka_lock(DEFAULT_VERSION))])
    jars = os.pathsep.join(map(str, tools))
    java = [str(find_java()), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]

    def run(line: str, option: str) -> None:
        script, *arguments = shlex.split(line, comments=True)
        words = [*java, option, "-cp", jars, CLASSES[script], *arguments]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)

    first, *rest = (line for line in lines if shlex.split(line, comments=True))
    # Most of a line's time is Java's, which reads the same classes: the first one leaves them to the others.
    run(first, f"-XX:ArchiveClassesAtExit={tmp_path / 'classes'}")
    shared = f"-XX:SharedArchiveFile={tmp_path / 'classes'}"
    with ThreadPoolExecutor(2) as pool:
        for outcome in [pool.submit(run, line, shared) for line in [*rest, first]]:
            outcome.result()
    run(rest[-1], shared)
    assert_topics(broker, settings)
    assert_acls(broker, settings)


# -- Terraform -------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)  # the provider is built once
def test_terraform_makes_topics_and_acls(broker: SecuredBroker, tool: Tool, tmp_path: Path) -> None:
    """Applied for real; a second plan has nothing to do."""
    settings = settings_named("terraform")
    (tmp_path / "main.tf").write_text(printed(settings, "terraform"))
    servers = broker.broker.bootstrap_servers
    (tmp_path / "provider.tf").write_text(
        f'provider "kafka" {{\n  bootstrap_servers = ["{servers}"]\n  tls_enabled       = false\n}}\n'
    )
    provider = tool("terraform-provider-kafka").parent
    (tmp_path / "terraformrc").write_text(
        f'provider_installation {{\n  dev_overrides {{ "Mongey/kafka" = "{provider}" }}\n  direct {{}}\n}}\n'
    )
    environment = {
        **os.environ,
        "TF_CLI_CONFIG_FILE": str(tmp_path / "terraformrc"),
        "CHECKPOINT_DISABLE": "1",
    }

    program = shutil.which("terraform") or shutil.which("tofu")
    assert program, "neither terraform nor tofu (OpenTofu) is on PATH: install one of them"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=110,
        )  # fmt: skip

    for arguments in (
        ["fmt", "-check", "-diff", "main.tf"],
        ["validate"],
        ["apply", "-auto-approve", "-no-color"],
    ):
        done = run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert_topics(broker, settings)
    assert_acls(broker, settings)
    again = run("plan", "-detailed-exitcode", "-no-color")
    assert again.returncode == 0, again.stdout
