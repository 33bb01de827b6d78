"""The conditions of a request: the version that it expects, its `request-id`, and the owner of the id; and
the fields of the id's record that keep them."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import LIVE, Answered, Schedule, Status, kept_actor
from delaystream.codec.outgoing import Outcome
from delaystream.core.identity import revision
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import NO_TERMS, Request

REMEMBERED: Final = 16
"""Requests with a `request-id` of which an id remembers the outcome."""


def answered(request: Request, schedule: Schedule | None) -> Answered | None:
    """How the same request was answered before; None where it was not, or that is forgotten."""
    name = request.terms.request_id
    if name is None or schedule is None:
        return None
    return next((known for known in schedule.answered if known.request_id == name), None)


def refusal(request: Request, schedule: Schedule | None) -> Rejection | None:
    """Why a request is refused on an id that is not as it has to be for it."""
    terms = request.terms
    detail = None
    if schedule is not None and terms.declared_by is not None and terms.deploy is not None:
        later = schedule.declared_by == terms.declared_by and schedule.deploy > terms.deploy
        if later:
            code = Code.DEPLOY_SUPERSEDED
            detail = (
                f"deploy {schedule.deploy} of {shown(terms.declared_by)} has decided on id "
                f"{shown(request.id or '')}, and this request is of deploy {terms.deploy}; expected that one "
                "or a later one"
            )
    if detail is None and terms.if_version is not None:
        code = Code.VERSION_CHANGED
        detail = _changed(request, schedule, terms.if_version)
    if detail is None:
        return None
    return Rejection(code, detail, id=request.id, reply_to=request.reply_to)


def _changed(request: Request, schedule: Schedule | None, expected: int) -> str | None:
    id = shown(request.id or "")
    if schedule is None or schedule.status is Status.FORESTALLED:
        return None if expected == 0 else f"id {id} does not exist, and if-version is {expected}"
    if expected == 0:
        exists = schedule.status in LIVE
        return f"id {id} exists, with version {schedule.version}, and if-version is 0" if exists else None
    if schedule.version == expected:
        return None
    return f"id {id} has version {schedule.version}, and if-version is {expected}; expected that one"


def stamped(schedule: Schedule, request: Request, outcome: Outcome) -> Schedule:
    """A schedule's record after a command that changed it: its version is the command's."""
    source, terms = request.source, request.terms
    schedule = replace(
        schedule,
        version=revision(source.partition, source.offset),
        note=terms.note,
        updated_ms=request.timestamp_ms,
        updated_by=kept_actor(request.actor),
    )
    return schedule if terms is NO_TERMS else noted(schedule, request, outcome)


def touched(schedule: Schedule, timestamp_ms: int, actor: str | None) -> Schedule:
    """A schedule that a command changes, with when that was asked for and by whom."""
    return replace(schedule, updated_ms=timestamp_ms, updated_by=kept_actor(actor))


def noted(schedule: Schedule, request: Request, outcome: Outcome) -> Schedule:
    """A schedule's record after a request that left what it is about as it was."""
    terms = request.terms
    if terms.declared_by is not None:
        # A declaration without a deployment does not count for later ones.
        known = schedule.deploy if schedule.declared_by == terms.declared_by else -1
        deploy = known if terms.deploy is None else terms.deploy
        schedule = replace(schedule, declared_by=terms.declared_by, deploy=deploy)
    if terms.request_id is not None:
        answer = Answered(terms.request_id, outcome.value, schedule.version)
        schedule = replace(schedule, answered=[*schedule.answered[1 - REMEMBERED :], answer])
    return schedule
