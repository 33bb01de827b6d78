"""The engine's bounds: each queue, batch, retry and wait has one, and each can be set."""

from __future__ import annotations

import msgspec


class EngineSettings(msgspec.Struct, frozen=True):
    """Settings of the partition processor; durations in ms, sizes in bytes."""

    app_id: str = "delaystream"
    commands_topic: str = "delay-commands"
    changelog_topic: str = "delay-wheel-changelog"
    dead_letters_topic: str = "delay-dead-letters"
    events_topic: str = "delay-events"
    #: whether what happens to schedules is told on the events topic
    events: bool = True
    #: whether that includes accepted requests without an id, and their fires
    events_anonymous: bool = False
    #: partitions of the request topics, the commands topic and the changelog
    partitions: int = 1
    #: least time from one transaction's start to the next under load
    transaction_interval_ms: int = 20
    #: most requests plus fires of one transaction
    transaction_max_records: int = 8_000
    transaction_max_bytes: int = 8 * 1024 * 1024
    #: largest anonymous request, times its due times: all of them are stored in one transaction
    list_max_bytes: int = 32 * 1024 * 1024
    #: most destination partitions of one transaction; a little over, where one wheel's fires go to many
    transaction_max_partitions: int = 500
    #: most records waiting between the fetcher and the processor
    inbox_max_records: int = 20_000
    inbox_max_bytes: int = 32 * 1024 * 1024
    #: how long a fire that proves impossible is tried before it is dead-lettered
    destination_timeout_ms: int = 24 * 3_600_000
    destination_backoff_min_ms: int = 500
    destination_backoff_max_ms: int = 60_000
    #: largest key, value and headers of a dead letter, an event or a receipt; above, a part of a letter or
    #: of an event is left out, and there is no receipt
    own_record_max_bytes: int = 1024 * 1024 + 96 * 1024
    #: how long a finished, cancelled or unknown id is remembered
    id_retention_ms: int = 24 * 3_600_000
    #: fires that a schedule's record remembers
    history_length: int = 20
    #: most triggered fires of one id that wait in its wheel
    max_triggers: int = 100
    #: with catch-up none, a fire of a recurring schedule that is later than this is missed
    misfire_threshold_ms: int = 60_000
    #: with catch-up all, most scheduled times of one schedule that have passed and may still fire
    max_catch_up: int = 10_000
    #: most schedules, or fires without an id, that one step goes through for a bulk command; four times
    #: as many for all that are at work
    bulk_slice: int = 1_000
    #: most holds of one request topic that stand at a time
    max_holds: int = 100
    #: most bulk commands, and commands by coordinates, of one request topic that are at work when a partition
    #: takes another one; what other partitions have taken comes on top
    max_commands_at_work: int = 1_000
    #: most ids of one request topic that are remembered because they were cancelled and never known; split
    #: over the partitions
    max_remembered_cancels: int = 1_000_000
    restart_backoff_min_ms: int = 100
    restart_backoff_max_ms: int = 10_000
    #: how long attempts may fail on end before the processor gives up, and with it the process
    failure_timeout_ms: int = 300_000
    #: a local store written longer ago is rebuilt: compaction may have dropped tombstones it needs
    changelog_delete_retention_ms: int = 24 * 3_600_000
    #: longest wait for the changelog's last stable offset to reach its end
    stable_timeout_ms: int = 60_000
    #: requests trimmed by retention before they were read: stop (False) or go on (True)
    continue_on_lost_requests: bool = False
    #: how far the group's committed offsets may be behind, for whoever watches the lag: the offsets that
    #: count are in the state, and adding these to a transaction costs as much as all else that is fixed
    offsets_interval_ms: int = 1_000
    #: who runs it, and where: for the row that tells it. Empty: there is no such row
    owner: str = ""
    host: str = ""
    #: that row is renewed this often, where something else is written
    status_interval_ms: int = 60_000
    #: how long a change of it waits for a step that it can go with
    status_delay_ms: int = 1_000
    #: an idle processor makes sure this often that the partition is still its own
    ownership_check_ms: int = 60_000
    #: longest sleep of an idle processor, for clock steps and parked destinations
    idle_wait_max_ms: int = 1_000

    def sets_aside(self, topic: str) -> bool:
        """Whether work can go on without a topic: all but the two that hold the state."""
        return topic not in (self.changelog_topic, self.commands_topic)
