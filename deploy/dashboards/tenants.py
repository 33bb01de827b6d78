"""For a tenant, or the owner of a destination: my incoming, delivered, waiting and refused requests."""

from __future__ import annotations

from deploy.dashboards.frame import chooser, dashboard
from deploy.dashboards.parts import CHOSEN, Json, Query, Row, graph, stat, table

_TOPIC = f'{CHOSEN}, topic=~"$topic"'
_DESTINATION = f'{CHOSEN}, destination=~"$destination"'


def tenants() -> Json:
    """By request topic (a tenant has one) and by destination."""
    return dashboard(
        "delaystream-tenants",
        "delaystream: tenants and destinations",
        "What comes in by request topic, what goes out by destination, and what does not.",
        [
            Row("Requests"),
            stat(
                "Accepted",
                "Requests accepted in the chosen time.",
                f"sum(increase(delaystream_requests_accepted_total{{{_TOPIC}}}[$__range]))",
                "short",
                decimals=0,
            ),
            graph(
                "Accepted, by request topic",
                "A second.",
                [
                    Query(
                        f"sum by (topic) (rate(delaystream_requests_accepted_total{{{_TOPIC}}}[$__rate_interval]))",
                        "{{topic}}",
                    )
                ],
                "ops",
                width=10,
            ),
            graph(
                "Dead letters, by code",
                "A second. What each code means stands in docs/headers.md; the letter says it in a sentence.",
                [
                    Query(
                        f"sum by (code) (rate(delaystream_requests_rejected_total{{{_TOPIC}}}[$__rate_interval]))",
                        "{{code}}",
                    )
                ],
                "ops",
                width=10,
            ),
            table(
                "Dead letters, with their codes",
                "In the chosen time.",
                f"sum by (topic, code) (increase(delaystream_requests_rejected_total{{{_TOPIC}}}[$__range])) > 0",
                {"topic": "request topic", "code": "code", "Value": "letters"},
            ),
            Row("Waiting"),
            graph(
                "Waiting, by request topic",
                "Events that wait, and the most that may (0: no bound). Beyond it requests are refused with quota-exceeded.",
                [
                    Query(f"sum by (topic) (delaystream_tenant_pending_entries{{{_TOPIC}}})", "{{topic}}"),
                    Query(
                        f"max by (topic) (delaystream_tenant_max_pending_entries{{{_TOPIC}}})",
                        "most for {{topic}}",
                    ),
                ],
                "short",
                width=8,
            ),
            graph(
                "Waiting, by destination",
                "Events that wait for their due time.",
                [
                    Query(
                        f"sum by (destination) (delaystream_pending_destination_entries{{{_DESTINATION}}})",
                        "{{destination}}",
                    )
                ],
                "short",
                width=8,
                stacked=True,
            ),
            table(
                "Waiting, by hour",
                "How many hours ahead the due times lie, by the clock; 0 is the present hour, past is overdue.",
                f"sum by (hours_ahead) (delaystream_pending_hour_entries{{{CHOSEN}}}) > 0",
                {"hours_ahead": "hours ahead", "Value": "events"},
                width=8,
            ),
            Row("Deliveries"),
            stat(
                "Delivered",
                "Deliveries in the chosen time.",
                f"sum(increase(delaystream_fires_total{{{_DESTINATION}}}[$__range]))",
                "short",
                decimals=0,
            ),
            graph(
                "Delivered, by destination",
                "A second. Of destinations, 200 are shown by name, further ones as `other`.",
                [
                    Query(
                        f"sum by (destination) (rate(delaystream_fires_total{{{_DESTINATION}}}[$__rate_interval]))",
                        "{{destination}}",
                    )
                ],
                "ops",
                width=20,
            ),
            graph(
                "Not delivered in their own right",
                "Due times without a delivery of their own, a second: missed (late, expired, destination), paused, or skipped because a later one covers them.",
                [
                    Query(
                        f"sum by (destination, reason) (rate(delaystream_missed_total{{{_DESTINATION}}}[$__rate_interval]))",
                        "{{destination}} {{reason}}",
                    )
                ],
                "ops",
                width=12,
            ),
            graph(
                "Set aside, by destination",
                "Partitions in which events wait because the destination cannot be written to.",
                [
                    Query(
                        f"sum by (destination) (delaystream_destination_parked_partitions{{{_DESTINATION}}})",
                        "{{destination}}",
                    )
                ],
                "short",
                width=12,
            ),
        ],
        [
            chooser("topic", "delaystream_requests_accepted_total", "topic", "request topic"),
            chooser("destination", "delaystream_fires_total", "destination", "destination"),
        ],
    )
