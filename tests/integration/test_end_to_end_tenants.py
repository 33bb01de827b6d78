"""Several request topics, one for each tenant, and a destination for requests that name none."""

from __future__ import annotations

import json

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
