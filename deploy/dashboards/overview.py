"""For users: is my event on time?"""

from __future__ import annotations

from deploy.dashboards.frame import dashboard
from deploy.dashboards.parts import CHOSEN, Json, Query, graph, heatmap, stat, table

_BUCKET = "delaystream_fire_delay_seconds_bucket"
_COUNT = "delaystream_fire_delay_seconds_count"
_LATENESS = "delaystream_fire_lateness_seconds_bucket"


def overview() -> Json:
    """The first dashboard that anybody opens."""
    return dashboard(
        "delaystream-overview",
        "delaystream: is my event on time",
        "How late events are delivered, how many wait, and what is not delivered at all.",
        [
            stat(
                "On time",
                "Share of all deliveries in the chosen time that came within 1 s of the moment at which they became fireable. The objective is 99 %.",
                f'sum(increase({_BUCKET}{{{CHOSEN}, le="1.0"}}[$__range])) / sum(increase({_COUNT}{{{CHOSEN}}}[$__range]))',
                "percentunit",
                limits=(0.999, 0.99),
                decimals=2,
            ),
            stat(
                "Error budget left",
                "Of the 1 % that may be late over 30 days: 100 % is untouched, 0 % is spent.",
                f"min(app:delaystream_error_budget_left:ratio{{{CHOSEN}}})",
                "percentunit",
                limits=(0.5, 0.0),
                decimals=1,
                least=None,
            ),
            stat(
                "Oldest overdue",
                "How long the event that waits longest has been due. What waits for a rate or for a destination that cannot be written to counts.",
                f"max(delaystream_oldest_overdue_seconds{{{CHOSEN}}})",
                "s",
                limits=(5, 60),
            ),
            stat(
                "Waiting",
                "Events that wait for their due time.",
                f"sum(delaystream_pending_entries{{{CHOSEN}}})",
                "short",
            ),
            stat(
                "Dead letters",
                "Requests refused and fires that proved impossible, in the chosen time.",
                f"sum(increase(delaystream_requests_rejected_total{{{CHOSEN}}}[$__range])) or vector(0)",
                "short",
                limits=(1, 1),
                decimals=0,
            ),
            stat(
                "Destinations set aside",
                "Topics that cannot be written to now; their events wait.",
                f"count(sum by (destination) (delaystream_destination_parked_partitions{{{CHOSEN}}}) > 0) or vector(0)",
                "short",
                limits=(1, 1),
            ),
            graph(
                "Lateness",
                "After the due time: half of the deliveries are at most as late as p50 says, 99 of 100 as p99 says. Waits that were asked for count. By the worker's clock, when it fires; the commit follows, see the time of a transaction.",
                [
                    Query(
                        f"histogram_quantile({quantile}, sum by (le) (rate({_LATENESS}{{{CHOSEN}}}[$__rate_interval])))",
                        name,
                    )
                    for quantile, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))
                ],
                "s",
                logarithmic=True,
            ),
            heatmap(
                "Lateness of all deliveries",
                "Each cell counts the deliveries that were that late.",
                f"sum by (le) (increase({_LATENESS}{{{CHOSEN}}}[$__rate_interval]))",
                "s",
            ),
            graph(
                "In and out",
                "Requests accepted, deliveries made, and dead letters, a second.",
                [
                    Query(
                        f"sum(rate(delaystream_requests_accepted_total{{{CHOSEN}}}[$__rate_interval]))",
                        "accepted",
                    ),
                    Query(f"sum(rate(delaystream_fires_total{{{CHOSEN}}}[$__rate_interval]))", "delivered"),
                    Query(
                        f"sum(rate(delaystream_requests_rejected_total{{{CHOSEN}}}[$__rate_interval])) or vector(0)",
                        "dead letters",
                    ),
                ],
                "ops",
            ),
            graph(
                "Waiting, by application",
                "Events that wait for their due time.",
                [
                    Query(
                        f"app:delaystream_pending_entries:sum{{{CHOSEN}}}",
                        "{{app_id}}",
                    )
                ],
                "short",
                stacked=True,
            ),
            graph(
                "Later than 1 s",
                "Share of deliveries that came more than 1 s after they became fireable, against the objective's 1 %.",
                [
                    Query(f"app:delaystream_fires_delayed:ratio_rate5m{{{CHOSEN}}}", "5 minutes {{app_id}}"),
                    Query(f"app:delaystream_fires_delayed:ratio_rate1h{{{CHOSEN}}}", "1 hour {{app_id}}"),
                ],
                "percentunit",
                limit=0.01,
            ),
            table(
                "Alerts",
                "What fires now. Each has a page in docs/runbooks.",
                f'ALERTS{{{CHOSEN}, alertname=~"Delaystream.*", alertstate="firing"}}',
                {
                    "alertname": "alert",
                    "severity": "severity",
                    "app_id": "application",
                    "destination": "destination",
                    "code": "code",
                },
            ),
        ],
    )
