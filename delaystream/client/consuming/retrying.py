"""What a consumer cannot handle: scheduled anew with a backoff, and dead-lettered after the last attempt.

Pure: a delivery goes in, the record to produce comes out. Whoever produces it in the transaction that marks
the delivery as read has it scheduled anew exactly once.

A backoff says how long to wait before the next attempt:

    10s                always 10 seconds
    10s..1h            10 s, 20 s, 40 s, ... and never more than an hour
    10s..1h*3          10 s, 30 s, 90 s, ... likewise; the factor is a number from 1, 2 unless it is given
    5s,5m,30m          5 s after the first attempt, 5 m after the second, 30 m after the third; then no more,
                       unless `max_attempts` is more: then the last one again

Lengths of time are as in `delaystream-delay`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Self

from delaystream.client.kafka.deliveries import ATTEMPT, Delivery
from delaystream.client.requests.checking import REQUEST_TOPIC, Checker
from delaystream.client.requests.numbers import real_number, whole_number
from delaystream.client.requests.outcomes import RejectedError
from delaystream.client.requests.payloads import CORRELATION_ID
from delaystream.client.requests.records import Place, RequestRecord, schedule_request
from delaystream.client.requests.timing import Duration, duration_text, length, whole_ms
from delaystream.codec.outgoing import OUTGOING_HEADERS, dead_letter_headers
from delaystream.codec.requests.values import MAX_ATTEMPT
from delaystream.core.durations import DurationError, format_duration, parse_duration
from delaystream.core.limits import Limits
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import Coordinates, Header

DEFAULT_BACKOFF: Final = "10s..1h*2"
DEFAULT_MAX_ATTEMPTS: Final = 10
"""Of a backoff that is no list, where nothing is said."""
DEAD_LETTERS_TOPIC: Final = "delay-dead-letters"

EVENT_TYPE: Final = "event_type"
"""The header with the name of an event's class: a tag of its request, too."""

_LONGEST_MS: Final = Limits().max_delay_ms
"""Workers take no longer delay, unless they are told to."""
_MOST_MS: Final = whole_ms(timedelta(days=999_999_999))
"""The longest timedelta."""
_MOST_LISTED: Final = 100
_MOST_DETAIL: Final = 1000
_DOUBLING: Final = 2.0
_LARGEST_FACTOR: Final = 1000.0
_FACTOR: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,6})?", re.ASCII)
_ERRORS: Final = frozenset(name for name in OUTGOING_HEADERS if name.startswith("delaystream-error"))
_EXPECTED: Final = "a backoff such as '10s', '10s..1h', '10s..1h*2' or '5s,5m,30m'"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after each attempt that failed.

    `delays_ms` are those after the first attempts, at least one. After them comes the last one, times
    `factor` for each further attempt, at most `most_ms`. ValueError for what is none: a delay that is
    negative or longer than a timedelta, a factor that is not from 1 to 1000, a bound below the last delay.
    TypeError for what is no number.
    """

    delays_ms: Sequence[int]
    most_ms: int
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.delays_ms:
            raise ValueError("The backoff has no length of time; expected at least one.")
        for delay_ms in self.delays_ms:
            whole_number("The backoff's length of time in ms", delay_ms, 0, _MOST_MS)
        whole_number("The backoff's most_ms", self.most_ms, 0, _MOST_MS)
        real_number("The backoff's factor", self.factor, 1, _LARGEST_FACTOR)
        if self.most_ms < self.delays_ms[-1]:
            raise ValueError(
                f"The backoff's most_ms is {self.most_ms}; expected no less than its last length of time, "
                f"{self.delays_ms[-1]}."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """A backoff in the notation of this module. Raises ValueError with a sentence."""
        if not text.strip():
            raise ValueError(f"The backoff is empty; expected {_EXPECTED}.")
        if ".." not in text:
            if "*" in text:
                raise _bad(text, "has a factor and no bound for what grows")
            delays_ms = tuple(_length_ms(text, item) for item in text.split(","))
            if len(delays_ms) > _MOST_LISTED:
                raise ValueError(
                    f"The backoff has {len(delays_ms)} lengths of time; expected at most {_MOST_LISTED}."
                )
            return cls(delays_ms, delays_ms[-1])
        first, _, rest = text.partition("..")
        most, star, written = rest.partition("*")
        first_ms, most_ms = _length_ms(text, first), _length_ms(text, most)
        factor = _factor(text, written.strip()) if star else _DOUBLING
        if not 0 < first_ms <= most_ms:
            raise _bad(text, "does not grow from its first length of time to its longest")
        return cls((first_ms,), most_ms, factor)

    @property
    def is_list(self) -> bool:
        """Whether it says of itself how many attempts there are."""
        return len(self.delays_ms) > 1

    def delay(self, attempt: int) -> timedelta:
        """How long to wait after `attempt` (from 1) has failed."""
        return length(self._delay_ms(attempt))

    def _delay_ms(self, attempt: int) -> int:
        if attempt <= len(self.delays_ms):
            return self.delays_ms[max(attempt, 1) - 1]
        last_ms = self.delays_ms[-1]
        growths = attempt - len(self.delays_ms)
        if self.factor == 1 or last_ms == 0:
            return last_ms
        if growths >= math.log(self.most_ms / last_ms, self.factor):
            return self.most_ms
        return min(round(last_ms * self.factor**growths), self.most_ms)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and how often at all.

    ValueError for `max_attempts` that is not from 1 to 2^31-1, TypeError for what is no whole number.
    """

    backoff: Backoff
    max_attempts: int

    def __post_init__(self) -> None:
        whole_number("max_attempts", self.max_attempts, 1, MAX_ATTEMPT)

    @classmethod
    def of(
        cls,
        *,
        delay: Duration | None = None,
        backoff: str | Backoff | None = None,
        max_attempts: int | None = None,
    ) -> Self:
        """Always after `delay`, or by `backoff`; neither: `DEFAULT_BACKOFF`.

        Without `max_attempts` there is one attempt more than a list has lengths of time, and for all else
        `DEFAULT_MAX_ATTEMPTS`. Raises ValueError with a sentence.
        """
        if delay is not None and backoff is not None:
            raise ValueError("delay and backoff are both given; expected one of them.")
        if delay is not None:
            delay_text = duration_text(delay)
            delay_ms = _length_ms(delay_text, delay_text)
            found = Backoff((delay_ms,), delay_ms)
        elif isinstance(backoff, Backoff):
            found = backoff
        else:
            found = Backoff.parse(DEFAULT_BACKOFF if backoff is None else backoff)
        if max_attempts is None:
            max_attempts = len(found.delays_ms) + 1 if found.is_list else DEFAULT_MAX_ATTEMPTS
        return cls(found, max_attempts)


@dataclass(frozen=True, slots=True)
class RetryTopics:
    """Where retries are asked for, and where what is given up goes.

    `requests` is a request topic whose headers are delaystream's own, no other system's. The topic of
    deliveries must be allowed as its destination.
    """

    requests: Place = field(default=Place(REQUEST_TOPIC))
    dead_letters: str = DEAD_LETTERS_TOPIC
    checker: Checker | None = field(default=None, repr=False, compare=False)
    """Checks requests; None: as a worker with default limits does."""

    def refusal(self, request: RequestRecord) -> RejectedError | None:
        """Why a worker would not take the request."""
        checker = self.checker or _default_checker(request.topic)
        try:
            checker.check(request)
        except RejectedError as rejected:
            return rejected
        return None


_default_checker: Final = lru_cache(maxsize=16)(Checker.of)

DEFAULT_TOPICS: Final = RetryTopics()


@dataclass(frozen=True, slots=True)
class Retry:
    """What becomes of a delivery that failed, and the record that says so: it is yet to be produced."""

    record: RequestRecord
    attempt: int
    """The attempt that failed."""
    delay: timedelta | None
    """How long until the next one; None: there is none, the record is a dead letter."""

    @property
    def is_dead_letter(self) -> bool:
        """Whether it was given up."""
        return self.delay is None


def retry(
    delivery: Delivery,
    policy: RetryPolicy,
    topics: RetryTopics = DEFAULT_TOPICS,
    *,
    error: BaseException | str | None = None,
    once: bool = False,
) -> Retry:
    """The delivery scheduled anew for its own topic and partition, or its dead letter after the last attempt.

    Key, value and the producer's own headers are kept; the attempt is counted in `delaystream-attempt`, which
    is replaced. `error` is why, for the dead letter.

    With `once` the request has an id that follows from the fire id (`retry_id`), and asks for the same retry
    however often it is sent, for a day: for whoever may read the delivery again. A transaction that holds
    the consumer's offsets needs none.

    A delivery whose headers cannot be read is a dead letter at once: they could not be kept. So is one that a
    worker would refuse to take again, such as one with too many headers.
    """
    if not delivery.is_readable:
        reason = "Its headers cannot be read, so that a retry would lose them"
        return dead_letter(delivery, topics, error=f"{reason}. {_said(error)}".rstrip())
    if delivery.attempt >= policy.max_attempts:
        detail = f"Attempt {delivery.attempt} of {policy.max_attempts} failed. {_said(error)}".rstrip()
        return _letter(delivery, topics, Code.ATTEMPTS_EXHAUSTED, detail)
    delay = policy.backoff.delay(delivery.attempt)
    id = retry_id(delivery) if once else None
    record = schedule_request(
        topics.requests,
        delivery.topic,
        delivery.value,
        key=delivery.key,
        headers=[*delivery.foreign, (ATTEMPT, b"%d" % (delivery.attempt + 1))],
        delay=delay,
        destination_partition=delivery.partition,
        tags=_tags(delivery) or None,
        id=id,
        request_id=id,
    )
    if (refusal := topics.refusal(record)) is not None:
        detail = f"A retry would be refused: {refusal} {_said(error)}".rstrip()
        return _letter(delivery, topics, Code.GIVEN_UP, detail)
    return Retry(record, delivery.attempt, delay)


def dead_letter(
    delivery: Delivery, topics: RetryTopics = DEFAULT_TOPICS, *, error: BaseException | str | None = None
) -> Retry:
    """The dead letter of a delivery for which no further attempt would help."""
    return _letter(delivery, topics, Code.GIVEN_UP, _said(error) or "The consumer gave it up.")


def retry_id(delivery: Delivery) -> str:
    """The id of the next attempt's schedule, where that has one: by it a retry is found, and cancelled."""
    return f"retry/{blake2b(delivery.identity.encode(), digest_size=16).hexdigest()}"


def _letter(delivery: Delivery, topics: RetryTopics, code: Code, detail: str) -> Retry:
    headers: list[Header] = []
    if delivery.is_readable:
        headers = [header for header in delivery.headers if header[0].lower() not in _ERRORS]
    source = Coordinates(delivery.topic, delivery.partition, delivery.offset)
    refused = Rejection(code, detail[:_MOST_DETAIL])
    written = dead_letter_headers(headers, source, delivery.timestamp_ms, refused)
    record = RequestRecord(topics.dead_letters, delivery.key, delivery.value, written)
    return Retry(record, delivery.attempt, None)


def without_payload(letter: Retry) -> Retry:
    """A dead letter that its topic would take: only why, and where the delivery stands."""
    ours = [header for header in letter.record.headers if header[0] in _ERRORS]
    return Retry(RequestRecord(letter.record.topic, None, None, ours), letter.attempt, None)


def _tags(delivery: Delivery) -> list[str]:
    """The tags of an event, which a delivery has no header for."""
    if delivery.header(EVENT_TYPE) is None:
        return []
    found = (delivery.header(EVENT_TYPE), delivery.header(CORRELATION_ID))
    texts = [value.decode("utf-8", "replace") for value in found if value is not None]
    return [text for text in texts if text.strip() and "," not in text]


def _said(error: BaseException | str | None) -> str:
    if error is None:
        return ""
    if isinstance(error, str):
        return error.strip()
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - it is the consumer's own class: whatever that does, its name is known
        text = "(it cannot be shown)"
    return f"{type(error).__qualname__}: {text}".strip()


def _length_ms(text: str, item: str) -> int:
    try:
        length_ms = parse_duration(item)
    except DurationError as error:
        raise _bad(text, f"has {shown(item.strip())}, which {error}") from None
    if length_ms > _LONGEST_MS:
        raise _bad(text, f"has {shown(item.strip())}, which is longer than {format_duration(_LONGEST_MS)}")
    return length_ms


def _factor(text: str, written: str) -> float:
    if _FACTOR.fullmatch(written) is None or not 1 <= float(written) <= _LARGEST_FACTOR:
        raise _bad(
            text, f"has the factor {shown(written)}, which is no number from 1 to {_LARGEST_FACTOR:.0f}"
        )
    return float(written)


def _bad(text: str, why: str) -> ValueError:
    return ValueError(f"The backoff {shown(text)} {why}; expected {_EXPECTED}.")
