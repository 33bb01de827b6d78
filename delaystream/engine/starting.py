"""Where to read on: every source from its own applied offset, never from the group's."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from delaystream.codec.envelope import SourcePosition
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.observer import Observer
from delaystream.engine.ports import SourceBounds, Sources
from delaystream.engine.settings import EngineSettings

logger = logging.getLogger(__name__)


async def starting_positions(
    settings: EngineSettings,
    partition: int,
    sources: Sources,
    applied: Mapping[str, SourcePosition],
    prove_ownership: Callable[[], Awaitable[None]],
    observer: Observer,
) -> tuple[dict[str, int], dict[str, str]]:
    """Fetch position and topic id of each source topic.

    A topic that has no position yet is read from its start; what was removed before that is told, and lost
    unless it was another's. Raises LogUnavailable while bounds cannot be had, and Misconfigured when going on
    would lose requests or apply them twice: the topic is another one of the same name, the applied offset
    lies beyond its end, retention took requests that were never read, or the group has applied what the state
    knows nothing of. Before that it is made sure that the
    partition is still ours, with ProducerFenced if it is not: to a worker that was overtaken, what the new
    owner has read, and retention then removed, looks the same.
    """
    bounds = await sources.bounds()
    positions: dict[str, int] = {}
    topic_ids: dict[str, str] = {}
    for topic in sources.topics:
        log = bounds[topic]
        topic_ids[topic] = log.topic_id
        position = applied.get(topic)
        where = f"{topic}-{partition}"
        if position is None:
            if log.committed:
                await prove_ownership()
                raise Misconfigured(_without_its_state(settings, where, partition, log))
            positions[topic] = log.start
            if log.start > 0:
                await prove_ownership()
                _tell_first(settings, where, topic, log.start)
                observer.trimmed(partition, topic, log.start)
            continue
        if position.topic_id != log.topic_id:
            await prove_ownership()
            raise Misconfigured(
                f"{where} was read up to offset {position.next_offset} when the topic's id was "
                f"{position.topic_id}; now it is {log.topic_id}: the topic was deleted and created anew. "
                "What was in the old one is lost. Another topic name starts afresh"
            )
        if position.next_offset > log.end:
            raise SourceBehind(
                f"{where} was read up to offset {position.next_offset}, and the log ends at {log.end}: the "
                "broker has lost records that were applied"
            )
        if position.next_offset < log.start:
            lost = log.start - position.next_offset
            sentence = (
                f"{where}: retention removed offsets {position.next_offset} to {log.start - 1} before they "
                f"were read, up to {lost} requests"
            )
            await prove_ownership()
            if not settings.continue_on_lost_requests:
                raise Misconfigured(
                    f"{sentence}. Nothing more is read until someone decides; "
                    "DELAYSTREAM_ON_REQUESTS_LOST=continue goes on without them"
                )
            logger.error("%s; going on without them", sentence)
            observer.trimmed(partition, topic, lost)
            positions[topic] = log.start
            continue
        positions[topic] = position.next_offset
    return positions, topic_ids


def _without_its_state(settings: EngineSettings, where: str, partition: int, log: SourceBounds) -> str:
    """The group has applied a log, and nothing of that is in the changelog."""
    changelog = f"{settings.changelog_topic}-{partition}"
    return (
        f"the group has applied {where} up to offset {log.committed}, and {changelog} knows nothing of that: "
        f"reading on from {log.start} would deliver again what was delivered, and schedule what was "
        "cancelled. Name the changelog that has the state, or bring it there with delaystream import. "
        "Where all of the topic is to be applied anew, delete the group's offsets "
        "(kafka-consumer-groups.sh --delete-offsets)"
    )


def _tell_first(settings: EngineSettings, where: str, topic: str, start: int) -> None:
    """This application begins at ``start``. Raises Misconfigured for the commands topic.

    A request topic may be older than the application: nothing says whether what it held was meant for us.
    """
    sentence = f"{where} begins at offset {start}, and this application has never read it"
    if topic != settings.commands_topic:
        logger.warning(
            "%s: up to %d requests were removed before. That is usual on a topic that was there before; else "
            "they are lost",
            sentence,
            start,
        )
        return
    if not settings.continue_on_lost_requests:
        raise Misconfigured(
            f"{sentence}: up to {start} requests that name an id were removed before. Nothing is read until "
            "someone decides. Where they were of an application that had the topic before, or may be lost: "
            f"one start with DELAYSTREAM_ON_REQUESTS_LOST=continue reads on from {start}, and remembers it. "
            "A topic of its own (DELAYSTREAM_COMMANDS_TOPIC) begins at 0"
        )
    logger.error("%s: up to %d requests that name an id were removed; going on without them", sentence, start)


class SourceBehind(LogUnavailable):
    """The log ends before what was applied from it: a new leader may not have caught up yet."""
