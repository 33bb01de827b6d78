"""The topics that a request may cause writes to: destinations, topics for receipts and for late fires."""

import re
from collections.abc import Iterable
from fnmatch import translate

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MEMO_ENTRIES = 10_000


def is_topic_name(text: str) -> bool:
    """Whether Kafka accepts `text` as a topic name (`org.apache.kafka.common.internals.Topic.validate`)."""
    return _TOPIC_NAME.fullmatch(text) is not None and text not in {".", ".."}


class DestinationFilter:
    """The allow-list, and the topics that no allow-list can open.

    `allow` holds topic names and globs (`*`, `?`, `[...]`). Always denied: names that are not topic names,
    `__*` (Kafka's own), every request topic and every topic of the project itself (`denied`). Among these,
    `receipts` always accepts receipts, and nothing else.
    """

    def __init__(self, allow: Iterable[str], denied: Iterable[str] = (), receipts: str | None = None) -> None:
        patterns = [pattern.strip() for pattern in allow]
        self._allowed = re.compile("|".join(translate(pattern) for pattern in patterns if pattern) or r"(?!)")
        self._receipts = receipts
        self._denied = frozenset(denied) | ({receipts} if receipts is not None else set())
        self._memo: dict[str, str | None] = {}

    def permits(self, topic: str) -> bool:
        """Whether records may be delivered to `topic`; remembers up to 10,000 topics."""
        return self.refusal(topic) is None

    def refusal(self, topic: str) -> str | None:
        """Why `topic` is denied, worded to follow its name in a sentence; None when it is permitted."""
        try:
            return self._memo[topic]
        except KeyError:
            reason = self._judge(topic)
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[topic] = reason
            return reason

    def receipt_refusal(self, topic: str) -> str | None:
        """Why no receipt may be written to `topic`, worded like `refusal`; None when one may."""
        return None if topic == self._receipts else self.refusal(topic)

    def _judge(self, topic: str) -> str | None:
        if not is_topic_name(topic):
            return "is not a topic name (1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'; not '.' or '..')"
        if topic.startswith("__"):
            return "is internal to Kafka"
        if topic in self._denied:
            return "is a request topic or one of delaystream's own"
        if self._allowed.fullmatch(topic) is None:
            return "is not in the allow-list"
        return None
