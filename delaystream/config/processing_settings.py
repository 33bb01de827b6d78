"""How partitions are processed: transactions, queues, retries, waits, the local store."""

from typing import Literal

from pydantic import Field

from delaystream.config.values import DAY_MS, HOUR_MS, KIB, MIB, MINUTE_MS, SECOND_MS, Section


class ProcessingSettings(Section):
    """The bounds of the engine, and of the parts around it."""

    list_max_bytes: int = Field(
        32 * MIB, ge=MIB, le=1024 * MIB, description="Size times due times of a request without an id."
    )

    transaction_interval_ms: int = Field(
        20,
        ge=0,
        le=10 * SECOND_MS,
        description="Shortest time between two transactions of a partition under load.",
    )
    transaction_max_records: int = Field(
        8_000, ge=1, le=100_000, description="Most requests and fires in one transaction."
    )
    transaction_max_bytes: int = Field(
        8 * MIB, ge=64 * KIB, le=256 * MIB, description="Most bytes of one transaction, approximately."
    )
    transaction_max_partitions: int = Field(
        500, ge=1, le=10_000, description="Most destination partitions of one transaction, approximately."
    )
    transaction_timeout_ms: int = Field(
        10 * SECOND_MS,
        ge=1 * SECOND_MS,
        le=15 * MINUTE_MS,
        description="The broker aborts a transaction that is open longer (transaction.timeout.ms).",
    )
    transactions_per_second: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Most transactions of one worker in a second; with many partitions the interval grows.",
    )
    inbox_max_records: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="Most fetched requests of a partition that wait; then fetching pauses.",
    )
    batch_max_decompressed_bytes: int = Field(
        64 * MIB,
        ge=MIB,
        le=1024 * MIB,
        description="Largest decompressed size of a record batch; a larger one is dead-lettered as a whole.",
    )
    inbox_max_bytes: int = Field(
        32 * MIB,
        ge=64 * KIB,
        le=1024 * MIB,
        description="Most bytes of fetched requests of a partition that wait; then fetching pauses.",
    )
    destination_timeout_ms: int = Field(
        24 * HOUR_MS,
        ge=0,
        le=365 * DAY_MS,
        description="How long an impossible fire is tried again, before it is dead-lettered.",
    )
    destination_backoff_min_ms: int = Field(
        500, ge=1, le=HOUR_MS, description="First wait before a failing destination is tried again."
    )
    destination_backoff_max_ms: int = Field(
        60 * SECOND_MS,
        ge=1,
        le=HOUR_MS,
        description="Longest wait before a failing destination is tried again.",
    )
    id_retention_ms: int = Field(
        24 * HOUR_MS,
        ge=0,
        le=365 * DAY_MS,
        description="How long an id is remembered after its schedule ended or was cancelled.",
    )
    on_requests_lost: Literal["stop", "continue"] = Field(
        "stop", description="A worker's reaction when retention removed requests before they were read."
    )
    restart_backoff_min_ms: int = Field(
        100, ge=1, le=HOUR_MS, description="First wait before a failed partition recovers again."
    )
    restart_backoff_max_ms: int = Field(
        10 * SECOND_MS,
        ge=1,
        le=HOUR_MS,
        description="Longest wait before a failed partition recovers again.",
    )
    failure_timeout_ms: int = Field(
        5 * MINUTE_MS,
        ge=1 * SECOND_MS,
        le=DAY_MS,
        description="A partition that fails for this long without a success ends the worker.",
    )
    events: bool = Field(
        True, description="Whether the events topic reports what happens to schedules with an id."
    )
    history_length: int = Field(
        20,
        ge=0,
        le=1_000,
        description="Most fires, and runs of times that did not fire, in the history of a schedule with an "
        "id.",
    )
    max_triggers: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most triggered fires of one id that wait for their destination, or its rate.",
    )
    misfire_threshold_ms: int = Field(
        1 * MINUTE_MS,
        ge=0,
        le=DAY_MS,
        description="With `catch-up: none`, a recurring fire that is later than this is missed.",
    )
    max_catch_up: int = Field(
        10_000,
        ge=1,
        le=10_000_000,
        description="With `catch-up: all`, most passed times of one schedule that may still fire; earlier "
        "ones are missed.",
    )
    bulk_slice: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Most schedules, or fires without an id, that one transaction goes through for one bulk "
        "command; four times as many for all bulk commands that are running.",
    )
    max_holds: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most bulk pauses of one request topic that hold requests back at the same time.",
    )
    max_commands_at_work: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Most bulk commands, and commands by `coordinates`, of one request topic that may be "
        "running on a partition when it accepts another one.",
    )
    max_remembered_cancels: int = Field(
        1_000_000,
        ge=1_000,
        le=1_000_000_000,
        description="Most cancels of unknown ids of one request topic that are remembered at a time, split "
        "over the partitions.",
    )
    stable_timeout_ms: int = Field(
        60 * SECOND_MS,
        ge=1 * SECOND_MS,
        le=HOUR_MS,
        description="Longest wait, at recovery, for open transactions on the changelog to end.",
    )
    offsets_interval_ms: int = Field(
        1_000, ge=0, le=3_600_000, description="How far the group's committed offsets may lag; ms."
    )
    status_interval_ms: int = Field(
        60 * SECOND_MS,
        ge=1 * SECOND_MS,
        le=DAY_MS,
        description="How often a busy partition renews the row that says who owns it.",
    )
    status_delay_ms: int = Field(
        1 * SECOND_MS,
        ge=0,
        le=HOUR_MS,
        description="How long a change of that row waits for a transaction that can carry it.",
    )
    ownership_check_ms: int = Field(
        60 * SECOND_MS,
        ge=1 * SECOND_MS,
        le=DAY_MS,
        description="How often an idle partition checks that its worker still owns it.",
    )
    idle_wait_max_ms: int = Field(
        1 * SECOND_MS,
        ge=10,
        le=MINUTE_MS,
        description="Longest sleep of an idle partition; a clock step is noticed within it.",
    )
    progress_timeout_ms: int = Field(
        60 * SECOND_MS,
        ge=1 * SECOND_MS,
        le=DAY_MS,
        description="A worker with work to do and no progress for this long ends itself.",
    )

    rocksdb_block_cache_bytes: int = Field(
        64 * MIB,
        ge=MIB,
        le=64 * 1024 * MIB,
        description="Block cache, shared by all partitions of a worker.",
    )
    rocksdb_write_buffer_bytes: int = Field(
        16 * MIB, ge=64 * KIB, le=1024 * MIB, description="Write buffer of each partition."
    )
