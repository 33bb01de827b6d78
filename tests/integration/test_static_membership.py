"""Two workers with one instance id: the second has it, the first ends, says so, and never takes it back."""

from __future__ import annotations

import json

import pytest

from tests.integration.harness import Deployment, Worker, wait
from tests.integration.harness_fixtures import Deploy

pytestmark = pytest.mark.timeout(150)

_TAKEN = "another worker has the instance id twin: "
#: the session timeout of the harness, and what a worker waits beyond it, with its start
_REFUSED_WITHIN_S = 6 + 5 + 15


def _delivers(app: Deployment, name: str) -> None:
    out = app.destination(name)
    app.request(b"v", {"destination": out, "delay": "200ms"})
    assert [delivery.value for delivery in app.kafka.read(out, 1)] == [b"v"]


def _ended(worker: Worker, seconds: float = 30.0) -> None:
    assert worker.wait_exit(seconds) == 78
    assert _TAKEN in worker.reason
    assert " on host 127.0.0.1" in worker.reason
    assert "DELAYSTREAM_INSTANCE_ID" in worker.reason


@pytest.mark.parametrize("paused", [False, True], ids=["at work", "paused, as on a node that was cut off"])
def test_the_worker_that_lost_its_instance_id_ends_and_leaves_the_other_alone(
    deploy: Deploy, paused: bool
) -> None:
    """A supervisor that starts it again changes nothing: it is refused, and the other one never notices."""
    app = deploy(partitions=2, DELAYSTREAM_INSTANCE_ID="twin").apply_topics()
    first = app.worker("a").wait_ready()
    _delivers(app, "before")
    if paused:
        first.pause()
    second = app.worker("b")
    if paused:
        second.wait_ready()
        first.resume()
    _ended(first)
    second.wait_ready()
    _delivers(app, "after")

    again = app.worker("a")
    _ended(again, _REFUSED_WITHIN_S)
    assert second.ready
    assert second.output().count("assigned: ") == 1, "its membership was disturbed"
    _delivers(app, "still")
    assert second.terminate() == 0

    # The membership of one that has stopped ends with its session.
    third = app.worker("a")
    wait(lambda: third.metric("delaystream_instance_fenced_total") == 2, "the metric")
    third.wait_ready()
    _delivers(app, "back")
    assert third.terminate() == 0


def test_a_worker_that_was_killed_has_its_instance_id_at_once(deploy: Deploy) -> None:
    """Its own membership is still there, and is no reason to wait: that is what static membership is for."""
    app = deploy(partitions=2, DELAYSTREAM_INSTANCE_ID="twin", DELAYSTREAM_SESSION_TIMEOUT_MS="40000")
    app.apply_topics().worker("a").wait_ready().kill()
    worker = app.worker("a").wait_ready(20)
    _delivers(app, "out")
    # A session that times out is not a lost identity.
    assert _TAKEN not in worker.output()
    assert worker.terminate() == 0


def test_a_join_that_waits_for_a_killed_member_says_for_whom_and_how_long(deploy: Deploy) -> None:
    """Without an instance id nobody knows that it will not answer: the group waits for its session to end."""
    app = deploy(partitions=2, DELAYSTREAM_SESSION_TIMEOUT_MS="15000").apply_topics()
    app.worker("a").wait_ready().kill()
    worker = app.worker("b")
    wait(lambda: "waiting to join the group" in worker.output(), "it to say so", 40)
    [line] = [line for line in worker.output().splitlines() if "waiting to join the group" in line]
    told = json.loads(line)["event"]
    assert f"the group {app.app_id}: the group waits for an answer from each member: " in told
    assert " on 127.0.0.1. A member that was killed did not leave:" in told
    assert told.endswith("up to 15 s by session_timeout_ms here")


def test_a_session_that_timed_out_is_no_fencing(deploy: Deploy) -> None:
    """Nobody else has the id: the worker joins again."""
    app = deploy(partitions=2, DELAYSTREAM_INSTANCE_ID="twin").apply_topics()
    worker = app.worker("a").wait_ready()
    other = app.worker("b", DELAYSTREAM_INSTANCE_ID="other").wait_ready()
    worker.pause()
    wait(lambda: other.metric("delaystream_partitions", "running") == 2, "the other to take over", 30)
    worker.resume()
    wait(lambda: worker.metric("delaystream_partitions", "running") == 1, "it to be back", 30)
    _delivers(app, "out")
    assert worker.terminate() == 0
    assert other.terminate() == 0
