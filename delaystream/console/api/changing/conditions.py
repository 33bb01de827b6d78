"""Under which conditions something is written, as HTTP says it: headers and query become `Asked`."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Header, Query

from delaystream.console.access import attempts
from delaystream.console.access.caller import Role
from delaystream.console.access.rights import permit
from delaystream.console.api.asking import Asked as Answering
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.reading.schedules import one_schedule
from delaystream.console.service import Console
from delaystream.console.writing.asking import KEY_CHARACTERS, LONGEST_WAIT_S, WAIT_S, Asked
from delaystream.console.writing.service import Writing

_ETAG: Final = re.compile(r'"([0-9]{1,19})"', re.ASCII)
_WAIT: Final = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*', re.ASCII | re.IGNORECASE)


class Conditions:
    """Who asks, and what has to hold."""

    def __init__(
        self,
        console: Answering,
        request_topic: Annotated[
            str | None, Query(description="Needed if several request topics match.")
        ] = None,
        if_match: Annotated[str | None, Header(description="The version to change, from its `ETag`.")] = None,
        if_none_match: Annotated[str | None, Header(description="`*`: only if there is no such id.")] = None,
        prefer: Annotated[
            str | None, Header(description="`wait=N`: seconds to wait for the outcome.")
        ] = None,
        idempotency_key: Annotated[
            str | None,
            Header(description="Names the request: within a day it has the same outcome."),
        ] = None,
    ) -> None:
        self._console = console
        self._request_topic = request_topic
        self._if_version = _version(if_match, if_none_match)
        self._wait_s = _wait_s(prefer)
        self._key = _key(idempotency_key)

    @property
    def writing(self) -> Writing:
        """What writes."""
        return writing_of(self._console)

    def of_topic(
        self, note: str | None = None, topic: str | None = None, role: Role = Role.OPERATOR
    ) -> Asked:
        """For a request of a topic: of the one that is named, or of the only one that the caller sees.

        Raises ProblemError, and Refused for a caller whose role is too low.
        """
        named = topic or self._request_topic
        topics = self._topics
        if named is None and len(topics) != 1:
            raise invalid(
                "request-topic-required",
                f"There are several request topics ({', '.join(topics)}): name one as request_topic.",
            )
        return self._asked(topics[0] if named is None else named, role, note)

    def of_schedule(self, id: str, note: str | None = None, topic: str | None = None) -> Asked:
        """For a command about an id: without a topic, of the one that has it. Raises as `of_topic`."""
        attempts.about(None, id, note)
        if topic is not None or self._request_topic is not None or len(self._topics) == 1:
            return self.of_topic(note, topic)
        return self._asked(one_schedule(self._console, id, None).tenant, Role.OPERATOR, note)

    def by(self, note: str | None = None) -> Asked:
        """For what is sent to no request topic."""
        attempts.about(None, note=note)
        return Asked(self._console.caller.who, "", self._wait_s, self._key, note=note)

    def following(self, topic: str) -> Asked:
        """For what follows from a request that was answered: its conditions and its key were for that one."""
        return Asked(self._console.caller.who, topic, self._wait_s)

    @property
    def _topics(self) -> list[str]:
        return [topic for topic in self.writing.topics if self._console.caller.sees(topic)]

    def _asked(self, topic: str, role: Role, note: str | None) -> Asked:
        caller = self._console.caller
        attempts.about(topic, note=note)
        if topic not in self._topics:
            # Another's topic is as one that is not there.
            raise ProblemError(
                HTTPStatus.NOT_FOUND,
                "unknown-request-topic",
                f"{topic[:60]!r} is not a request topic; expected one of "
                f"{', '.join(self._topics) or 'none'}.",
            )
        permit(caller, role, topic)
        return Asked(caller.who, topic, self._wait_s, self._key, self._if_version, note)


Conditioned = Annotated[Conditions, Depends()]


def writing_of(console: Console) -> Writing:
    """What writes for a console. Raises ProblemError where nothing does."""
    if console.writing is None:
        raise ProblemError(HTTPStatus.FORBIDDEN, "read-only", "This console writes nothing.")
    return console.writing


def _version(if_match: str | None, if_none_match: str | None) -> int | None:
    if if_match is not None and if_none_match is not None:
        raise invalid("invalid-version", "If-Match and If-None-Match are given; expected one of them.")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise invalid("invalid-version", f"If-None-Match is {if_none_match[:60]!r}; expected *.")
        return 0
    if if_match is None:
        return None
    if (found := _ETAG.fullmatch(if_match.strip())) is None or int(found[1]) == 0:
        raise invalid(
            "invalid-version",
            f'If-Match is {if_match[:60]!r}; expected one version in the form of an ETag, such as "32769".',
        )
    return int(found[1])


def _wait_s(prefer: str | None) -> float:
    """Preferences that are not understood are passed over, as RFC 7240 has it."""
    for preference in (prefer or "").split(","):
        if preference.partition(";")[0].strip().lower() == "respond-async":
            return 0.0
        if found := _WAIT.fullmatch(preference.partition(";")[0]):
            return min(float(found[1]), LONGEST_WAIT_S)
    return WAIT_S


def _key(key: str | None) -> str | None:
    if key is None:
        return None
    if not key or len(key) > KEY_CHARACTERS:
        raise invalid(
            "invalid-idempotency-key",
            f"Idempotency-Key has {len(key)} characters; expected 1 to {KEY_CHARACTERS}.",
        )
    return key
