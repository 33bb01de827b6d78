"""For operators: partitions, transactions, recovery, resources."""

from __future__ import annotations

from deploy.dashboards.frame import dashboard
from deploy.dashboards.parts import CHOSEN, Json, Panel, Query, Row, graph, stat, table

_TRANSACTIONS = "delaystream_transaction_seconds"
_ABORTS = "delaystream_transactions_aborted_total"
_OURS = f"and on (app_id, instance) delaystream_ready{{{CHOSEN}}}"


def operation() -> Json:
    """The dashboard for people on call."""
    return dashboard(
        "delaystream-operation",
        "delaystream: operation",
        "Partitions and who owns them, overdue work, transactions, recovery, resources, consoles.",
        [
            Row("Partitions"),
            stat(
                "Workers ready",
                "Workers whose partitions all run.",
                f"sum(delaystream_ready{{{CHOSEN}}})",
                "short",
            ),
            stat(
                "Partitions running",
                "Partitions that accept and deliver.",
                f"sum(app:delaystream_partitions_running:sum{{{CHOSEN}}})",
                "short",
            ),
            stat(
                "Partitions without owner",
                "Partitions of the request topics that no worker has: nothing is accepted or delivered there.",
                f"sum(app:delaystream_request_partitions:max{{{CHOSEN}}} - app:delaystream_partitions_owned:sum{{{CHOSEN}}})",
                "short",
                limits=(1, 1),
                least=None,
            ),
            stat(
                "Overdue",
                "For how long the oldest fire that only the worker delays has been due.",
                f"max(app:delaystream_fireable_overdue_seconds:max{{{CHOSEN}}})",
                "s",
                limits=(5, 60),
            ),
            stat(
                "Failed transactions",
                "In the chosen time, attempts on destinations in trouble included.",
                f"sum(increase({_ABORTS}{{{CHOSEN}}}[$__range])) or vector(0)",
                "short",
                limits=(1, 20),
                decimals=0,
            ),
            stat(
                "Least disk left",
                "Of the disk with the least free space.",
                f"min(instance:delaystream_state_disk_free:ratio{{{CHOSEN}}})",
                "percentunit",
                limits=(0.2, 0.05),
            ),
            graph(
                "Partitions by phase",
                "All but `running` should be short.",
                [Query(f"sum by (phase) (delaystream_partitions{{{CHOSEN}}})", "{{phase}}")],
                "short",
                stacked=True,
            ),
            graph(
                "Partitions by worker",
                "In any phase.",
                [Query(f"sum by (instance) (delaystream_partitions{{{CHOSEN}}})", "{{instance}}")],
                "short",
                stacked=True,
            ),
            Row("Overdue"),
            graph(
                "Overdue, by partition",
                "The ten partitions with the oldest due event.",
                [
                    Query(
                        f"topk(10, delaystream_oldest_overdue_seconds{{{CHOSEN}}})",
                        "{{partition}} on {{instance}}",
                    )
                ],
                "s",
            ),
            graph(
                "Since the last commit, by partition",
                "Matters where something is overdue; an idle partition commits nothing.",
                [
                    Query(
                        f"topk(10, delaystream_last_commit_age_seconds{{{CHOSEN}}})",
                        "{{partition}} on {{instance}}",
                    )
                ],
                "s",
            ),
            graph(
                "Waiting beyond the due time",
                "The longest wait for each destination, by what it waits for: fireable (the worker), rate, hold, parked (the destination). Only the first pages.",
                [
                    Query(
                        f"max by (destination, waits_for) (delaystream_destination_overdue_seconds{{{CHOSEN}}})",
                        "{{destination}}: {{waits_for}}",
                    )
                ],
                "s",
            ),
            graph(
                "Delay, by destination",
                "99 of 100 deliveries came at most so long after they became fireable; within the bounds of few buckets.",
                [
                    Query(
                        "histogram_quantile(0.99, sum by (destination, le)"
                        f" (rate(delaystream_destination_fire_delay_seconds_bucket{{{CHOSEN}}}[$__rate_interval])))",
                        "{{destination}}",
                    )
                ],
                "s",
            ),
            Row("Reading"),
            graph(
                "Unread requests",
                "By request topic, and the commands topic.",
                [
                    Query(
                        f"sum by (topic) (delaystream_unread_requests{{{CHOSEN}}})",
                        "{{topic}}",
                    )
                ],
                "short",
            ),
            graph(
                "Held up by an open transaction",
                "For how long a transaction that somebody has left open has held up a partition.",
                [
                    Query(
                        f"delaystream_last_stable_offset_stuck_seconds{{{CHOSEN}}}",
                        "{{topic}}-{{partition}}",
                    )
                ],
                "s",
            ),
            Row("Transactions"),
            graph(
                "Transactions a second, by worker",
                "Committed. Small ones when quiet, large ones under load.",
                [
                    Query(
                        f"sum by (instance) (rate({_TRANSACTIONS}_count{{{CHOSEN}}}[$__rate_interval]))",
                        "{{instance}}",
                    )
                ],
                "ops",
            ),
            graph(
                "Time of a transaction",
                "From begin to commit.",
                [
                    Query(
                        f"histogram_quantile({quantile}, sum by (le) (rate({_TRANSACTIONS}_bucket{{{CHOSEN}}}[$__rate_interval])))",
                        name,
                    )
                    for quantile, name in ((0.5, "p50"), (0.99, "p99"))
                ],
                "s",
            ),
            graph(
                "Deliveries in a transaction",
                "On average.",
                [
                    Query(
                        f"sum(rate(delaystream_fires_total{{{CHOSEN}}}[$__rate_interval]))"
                        f" / sum(rate({_TRANSACTIONS}_count{{{CHOSEN}}}[$__rate_interval]))",
                        "deliveries",
                    )
                ],
                "short",
            ),
            graph(
                "Failures, by reason",
                "Of transactions and recoveries, a second. WriteRefused is a destination in trouble.",
                [Query(f"sum by (reason) (rate({_ABORTS}{{{CHOSEN}}}[$__rate_interval]))", "{{reason}}")],
                "ops",
            ),
            Row("Recovery"),
            graph(
                "Changelog left to read, by partition",
                "Offsets; some hold no record. 0 when recovery is done.",
                [
                    Query(
                        f"delaystream_recovery_end{{{CHOSEN}}} - delaystream_recovery_position{{{CHOSEN}}}",
                        "{{partition}} on {{instance}}",
                    )
                ],
                "short",
            ),
            graph(
                "Records recovered, by worker",
                "Changelog records applied to local state since the worker started.",
                [
                    Query(
                        f"sum by (instance) (delaystream_recovery_records_total{{{CHOSEN}}})", "{{instance}}"
                    )
                ],
                "short",
            ),
            Row("Resources"),
            graph(
                "CPU, by worker",
                "In cores. A worker's event loop uses one at most; some work is done beside it.",
                [
                    Query(
                        f"rate(process_cpu_seconds_total{{{CHOSEN}}}[$__rate_interval]) {_OURS}",
                        "{{instance}}",
                    )
                ],
                "short",
                width=8,
            ),
            graph(
                "Memory, by worker",
                "Resident.",
                [Query(f"process_resident_memory_bytes{{{CHOSEN}}} {_OURS}", "{{instance}}")],
                "bytes",
                width=8,
            ),
            graph(
                "Open files, by worker",
                "Share of what the process may open.",
                [
                    Query(
                        f"process_open_fds{{{CHOSEN}}} / process_max_fds{{{CHOSEN}}} {_OURS}", "{{instance}}"
                    )
                ],
                "percentunit",
                width=8,
            ),
            graph(
                "Local state, by worker",
                "Its size on disk.",
                [Query(f"delaystream_state_bytes{{{CHOSEN}}}", "{{instance}}")],
                "bytes",
                width=8,
            ),
            graph(
                "Disk free, by worker",
                "Share of the disk that the state is on.",
                [Query(f"instance:delaystream_state_disk_free:ratio{{{CHOSEN}}}", "{{instance}}")],
                "percentunit",
                width=8,
            ),
            graph(
                "Clock against brokers",
                "Positive: the worker is ahead, and fires too early by that.",
                [Query(f"delaystream_clock_skew_seconds{{{CHOSEN}}}", "{{instance}} against {{broker}}")],
                "s",
                width=8,
                least=None,
            ),
            table(
                "Workers",
                "What runs, and for how long.",
                f"time() - process_start_time_seconds{{{CHOSEN}}}"
                f" + on (app_id, instance) group_right () 0 * delaystream_build_info{{{CHOSEN}}}",
                {
                    "app_id": "application",
                    "instance": "worker",
                    "version": "version",
                    "python": "Python",
                    "Value": "up for",
                },
                unit="s",
                width=24,
            ),
            *_console(),
        ],
    )


def _console() -> list[Panel | Row]:
    """What consoles know, and what is asked of them."""
    requests, seconds = "delaystream_console_requests_total", "delaystream_console_request_seconds_bucket"
    answered = f'{requests}{{{CHOSEN}, route!~"/health/.*"}}'
    quantiles = f"sum by (le) (rate({seconds}{{{CHOSEN}}}[$__rate_interval]))"
    return [
        Row("Console"),
        stat(
            "Consoles", "Those that are scraped.", f"count(delaystream_console_streams{{{CHOSEN}}})", "short"
        ),
        stat(
            "Copies behind",
            "Since when something may be missing of the copy that is furthest behind.",
            f"max(delaystream_console_copy_age_seconds{{{CHOSEN}}})",
            "s",
            limits=(5, 60),
        ),
        stat(
            "Partitions caught up",
            "Share of the copies that have caught up since their console started.",
            f"avg(delaystream_console_copy_following{{{CHOSEN}}})",
            "percentunit",
            limits=(1, 0.5),
        ),
        stat(
            "Events lost to the history",
            "Gone from their topic before they were read, since the history began.",
            f"max(sum by (instance) (delaystream_console_history_lost_events{{{CHOSEN}}}))",
            "short",
            limits=(1, 1),
        ),
        stat(
            "Open streams",
            "Pages and services that follow events as they come.",
            f"sum(delaystream_console_streams{{{CHOSEN}}})",
            "short",
        ),
        stat(
            "Tokens",
            "In force, or expired; of the console that knows most.",
            f"max(delaystream_console_tokens{{{CHOSEN}}} * delaystream_console_tokens_file_taken{{{CHOSEN}}})",
            "short",
        ),
        graph(
            "Not read yet, by console",
            "Records of the changelog, events and dead letters that a console has still to read, or cannot.",
            [
                Query(
                    f"sum by (instance) (delaystream_console_{name}_records{{{CHOSEN}}})",
                    f"{{{{instance}}}} {text}",
                )
                for name, text in (
                    ("copy_lag", "changelog"),
                    ("history_lag", "events"),
                    ("dead_letters_lag", "dead letters"),
                    ("dead_letters_skipped", "unreadable"),
                )
            ],
            "short",
            width=8,
        ),
        graph(
            "Named schedules, by status",
            "As the consoles know them; without an id: single requests that are pending.",
            [
                Query(f"max by (status) (delaystream_console_schedules{{{CHOSEN}}})", "{{status}}"),
                Query(f"max(delaystream_console_unnamed{{{CHOSEN}}})", "without an id"),
            ],
            "short",
            width=8,
        ),
        graph(
            "Refused, by code",
            "Requests that were refused before they were looked at, or for their size.",
            [
                Query(
                    f"sum by (code) (rate(delaystream_console_refused_total{{{CHOSEN}}}[$__rate_interval]))",
                    "{{code}}",
                )
            ],
            "reqps",
            width=8,
        ),
        graph(
            "Requests, by route",
            "Answered by consoles, without those about their health.",
            [Query(f"sum by (route) (rate({answered}[$__rate_interval]))", "{{route}}")],
            "reqps",
            width=8,
            stacked=True,
        ),
        graph(
            "Answers, by status",
            "From 500 on, a console failed.",
            [Query(f"sum by (status) (rate({answered}[$__rate_interval]))", "{{status}}")],
            "reqps",
            width=8,
            stacked=True,
        ),
        graph(
            "Time of an answer",
            "From a request to its last byte, but for streams. A write waits until it can be read.",
            [Query(f"histogram_quantile({q}, {quantiles})", f"p{100 * q:g}") for q in (0.5, 0.99)],
            "s",
            width=8,
        ),
    ]
