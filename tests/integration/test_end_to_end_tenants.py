"""Several request topics, one for each tenant, and a destination for requests that name none."""

from __future__ import annotations

import json
import re
import time

from tests.integration.harness import wait
from tests.integration.harness_fixtures import Deploy


def test_request_topics_do_not_share_ids(deploy: Deploy) -> None:
    """The same id on two request topics is two schedules; a cancel reaches its own tenant's only."""
    app = deploy(partitions=2)
    other = app.topic("other-requests")
    out, replies = app.destination(), app.destination("replies")
    app.settings |= {
        "DELAYSTREAM_REQUEST_TOPICS": f"{app.requests},{other}",
        "DELAYSTREAM_DEFAULT_DESTINATION": out,
    }
    app.apply_topics().worker().wait_ready()
    for tenant in (app.requests, other):
        app.request(tenant.encode(), {"delay": "2s", "id": "same"}, topic=tenant, partition=0)
    cancel = {"action": "cancel", "id": "same", "reply-to": replies}
    app.request(None, cancel, topic=other, partition=0)
    with app.reader(replies) as reader:
        assert json.loads(reader.take(1)[0].value or b"")["outcome"] == "cancelled"
    with app.reader(out) as reader:
        assert [delivery.value for delivery in reader.take(1)] == [app.requests.encode()]
        reader.quiet(1)


def test_each_request_topic_has_its_own_policy(deploy: Deploy) -> None:
    """Destinations, a quota that a kill does not forget, a rate; and what of it the metrics say."""
    app = deploy(partitions=2)
    other = app.topic("other-requests")
    out, elsewhere = app.destination(), app.destination("elsewhere")
    variable = "DELAYSTREAM_TENANTS_" + re.sub("[^A-Z0-9]", "_", other.upper())
    app.settings |= {
        "DELAYSTREAM_REQUEST_TOPICS": f"{app.requests},{other}",
        f"{variable}_DESTINATIONS_ALLOW": out,
        f"{variable}_MAX_PENDING": "6",
        f"{variable}_DESTINATION_RATES": f"{out}=4",
    }
    worker = app.apply_topics().worker().wait_ready()
    app.request(b"denied", {"destination": elsewhere, "delay": "0"}, topic=other, partition=0)
    app.request(b"ours", {"destination": elsewhere, "delay": "0"}, partition=0)
    due_ms = int(time.time() * 1000) + 12_000
    for value in (b"0", b"1", b"2"):
        app.request(value, {"destination": out, "at": str(due_ms)}, topic=other, partition=0)
    pending = ("delaystream_tenant_pending_entries", f'topic="{other}"')
    wait(lambda: worker.metric(*pending) == 3, "three pending entries")
    assert worker.metric("delaystream_tenant_max_pending_entries", f'topic="{other}"') == 6
    assert worker.metric("delaystream_pending_destination_entries", f'destination="{out}"') == 3
    assert worker.metric("delaystream_pending_hour_entries") == 3
    worker.kill()
    app.request(b"too many", {"destination": out, "delay": "1h"}, topic=other, partition=0)
    worker = app.worker().wait_ready()
    with app.reader(app.dead_letters) as reader:
        letters = reader.take(2)
    assert [(letter.value, letter.header("delaystream-error")) for letter in letters] == [
        (b"denied", b"destination-denied"),
        (b"too many", b"quota-exceeded"),
    ]
    with app.reader(elsewhere) as reader:
        assert [delivery.value for delivery in reader.take(1)] == [b"ours"]
    with app.reader(out) as reader:
        fired = reader.take(3)
    assert [delivery.value for delivery in fired] == [b"0", b"1", b"2"]
    # Two a second on each partition, and the first of them at once.
    assert fired[0].timestamp_ms >= due_ms
    assert fired[-1].timestamp_ms - fired[0].timestamp_ms >= 400
    wait(lambda: worker.metric(*pending) == 0, "nothing pending")
