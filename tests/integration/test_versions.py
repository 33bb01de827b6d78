"""Workers of a version that cannot share the group: what the one that comes later says, and how it ends."""

from __future__ import annotations

from confluent_kafka import Consumer

from delaystream.exit_codes import ExitCode
from tests.integration.harness import wait
from tests.integration.harness_fixtures import Deploy


def test_a_worker_beside_those_of_another_version_says_what_to_do_and_ends(deploy: Deploy) -> None:
    """After a session's time, in which a worker that was stopped would be gone; not with a traceback."""
    app = deploy(partitions=1).apply_topics()
    stranger = Consumer(
        {
            "bootstrap.servers": app.kafka.bootstrap,
            "group.id": app.app_id,
            "partition.assignment.strategy": "range",
        }
    )
    stranger.subscribe([app.requests, app.commands])
    try:
        wait(
            lambda: stranger.poll(0.1) is None and len(stranger.assignment()) == 2,
            "the other version to be at work",
        )
        worker = app.worker()
        wait(lambda: "waiting to join" in worker.output(), "a word of why it does not join")
        assert worker.alive
        assert not worker.ready
        assert worker.wait_exit() == ExitCode.CONFIGURATION
    finally:
        stranger.close()
    assert f"the group {app.app_id} has members that share its partitions in another way" in worker.reason
    assert "Stop all workers of the other version first, then start this one" in worker.reason
    assert "Traceback" not in worker.output()
    # They are gone: the same command works.
    again = app.worker("again").wait_ready()
    assert again.terminate() == 0
