"""Examples in the description of the interface: whole answers, which a test holds to their schemas."""

from __future__ import annotations

from typing import Any, Final

_FRESH: Final[dict[str, Any]] = {
    "as_of": "2030-01-31T08:59:59.950Z",
    "lag_ms": 50,
    "complete": True,
    "missing_partitions": [],
}
SCHEDULE: Final[dict[str, Any]] = {
    "id": "invoice-run",
    "request_topic": "delay-requests",
    "status": "pending",
    "version": 32769,
    "revision": 32769,
    "definition": {
        "destination": "invoices",
        "cron": "0 9 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "dst_gap": "shift",
        "dst_overlap": "first",
        "catch_up": "latest",
        "grace": "15m",
        "name": "Invoices",
        "tags": ["billing"],
    },
    "source": "delay-requests/0/1",
    "next_at": "2030-02-01T08:00:00.000Z",
    "upcoming": ["2030-02-01T08:00:00.000Z", "2030-02-04T08:00:00.000Z"],
    "last_fired_at": "2030-01-31T08:00:00.004Z",
    "last_fire_id": "delay-requests/r32769/0/1896076800000/invoice-run",
    "fired": 21,
    "missed": 0,
    "triggered": 0,
    "created_at": "2030-01-02T10:00:00.000Z",
    "created_by": "billing-service",
    "updated_at": "2030-01-02T10:00:00.000Z",
    "updated_by": "billing-service",
    "note": None,
    "paused_at": None,
    "until": None,
    "held_by": None,
    "declared_by": None,
    "deploy": None,
    "forget_at": None,
    "key": "customer-7",
    "key_base64": None,
}
PENDING: Final[dict[str, Any]] = {
    "due_at": "2030-01-31T09:15:00.000Z",
    "destination": "reminders",
    "request_topic": "delay-requests",
    "id": None,
    "source": "delay-requests/3/1044",
    "status": "pending",
    "held_by": None,
    "note": None,
    "key": "customer-7",
    "key_base64": None,
    "tags": [],
}
_FOUND: Final[dict[str, Any]] = {
    "by": "coordinates",
    "state": "unread",
    "detail": "Requests of delay-requests-3 are read up to offset 1040, and the partition ends at 1052.",
    "by_elimination": True,
    "code": None,
    "schedule": None,
    "pending": None,
    "event": None,
}
_LETTER: Final[dict[str, Any]] = {
    "place": "0.12",
    "kind": "request",
    "standing": "open",
    "last_act": None,
    "partition": 0,
    "offset": 12,
    "at": "2030-01-31T08:12:04.120Z",
    "code": "invalid-delay",
    "detail": "delaystream-delay: 'soon' is not a duration; expected a duration with units such as '15m'.",
    "request_topic": "delay-requests",
    "source": "delay-requests/3/1040",
    "source_at": "2030-01-31T08:12:04.100Z",
    "delivery": None,
    "id": None,
    "destination": "reminders",
    "key": "customer-7",
    "key_base64": None,
    "value_bytes": 512,
    "headers": [["delaystream-delay", "soon"], ["delaystream-error", "invalid-delay"]],
    "headers_cut": False,
    "headers_hidden": False,
}
_CHECK: Final[dict[str, Any]] = {
    "sendable": True,
    "code": None,
    "detail": None,
    "request_topic": "delay-requests",
    "id": "redrive/0.12/5f0c1d2e3a4b",
    "headers": [
        ["delaystream-destination", "reminders"],
        ["delaystream-delay", "15m"],
        ["delaystream-actor", "lena"],
        ["delaystream-id", "redrive/0.12/5f0c1d2e3a4b"],
        ["delaystream-if-exists", "keep"],
    ],
    "differences": [
        {"name": "delaystream-delay", "header": True, "before": ["soon"], "after": ["15m"]},
    ],
    "due_at": ["2030-01-31T09:15:00.000Z"],
}
_ACT: Final[dict[str, Any]] = {
    "act": "redrive",
    "number": 1,
    "actor": "lena",
    "note": "typo of release 4.2",
    "asked_at": "2030-01-31T09:00:00.000Z",
    "run": None,
    "request_id": "redrive-0.12-5f0c1d2e3a4b",
    "request_topic": "delay-requests",
    "about": "redrive/0.12/5f0c1d2e3a4b",
    "changed": ["set delaystream-delay"],
    "stage": "decided",
    "source": "delay-requests/3/1066",
    "outcome": "scheduled",
    "code": None,
    "detail": None,
    "letter": None,
}
_PREVIEW: Final[dict[str, Any]] = {
    "timezone": "Europe/Berlin",
    "items": [
        {
            "at": "2030-03-30T01:30:00.000Z",
            "local": "2030-03-30T02:30:00.000+01:00",
            "offset": "+01:00",
            "note": None,
        },
        {
            "at": "2030-03-31T01:00:00.000Z",
            "local": "2030-03-31T03:00:00.000+02:00",
            "offset": "+02:00",
            "note": "gap: 02:30 does not exist, moved to 03:00",
        },
    ],
    "clock_changes": [
        {
            "at": "2030-03-31T01:00:00.000Z",
            "before": "+01:00",
            "after": "+02:00",
            "note": "clocks change before 2030-03-31T01:00:00.000Z: its offset from UTC is +02:00 from then "
            "on, and was +01:00",
        }
    ],
    "jitter": None,
    "more": True,
}
_PROBLEM: Final[dict[str, Any]] = {
    "type": "about:blank",
    "title": "Conflict",
    "status": 409,
    "code": "ambiguous-id",
    "detail": "delay-requests, other-requests have a schedule 'invoice-run' each: name one as request_topic.",
}

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "ScheduleBody": SCHEDULE,
    "ScheduleList": {
        **_FRESH,
        "items": [SCHEDULE],
        "next_cursor": None,
        "total": {"count": 1, "relation": "exact"},
    },
    "PendingBody": PENDING,
    "PendingList": {**_FRESH, "items": [PENDING], "next_cursor": None},
    "WhereList": {**_FRESH, "items": [_FOUND]},
    "AgendaList": {
        **_FRESH,
        "items": [
            {
                "due_at": "2030-02-01T08:00:00.000Z",
                "destination": "invoices",
                "request_topic": "delay-requests",
                "id": "invoice-run",
                "source": "delay-requests/0/1",
                "status": "pending",
                "expected": True,
            }
        ],
        "next_from": None,
        "partial": False,
    },
    "LetterList": {
        "items": [_LETTER],
        "next_cursor": None,
        "counts": {"invalid-delay": 1},
        "reading": [
            {"partition": 0, "position": 14, "end": 14, "kept_from": 0, "skipped": 0, "problem": None}
        ],
    },
    "AuditList": {
        "items": [
            {
                "number": 1207,
                "at": "2030-01-31T08:59:58.120Z",
                "name": "mia@example.com",
                "kind": "oidc",
                "subject": "248289761001",
                "issuer": "https://login.example.com",
                "address": "10.1.2.3",
                "action": "cancel",
                "request_topic": "delay-requests",
                "about": "invoice-run",
                "note": "enough",
                "request_id": "8c6b0e1f0c1d4c55a1f0a7d2b9f3e6d1",
                "outcome": "cancelled",
                "code": None,
                "source": "delay-requests/0/41",
            }
        ],
        "next_cursor": None,
    },
    "LetterDetail": {
        **_LETTER,
        "standing": "accepted",
        "last_act": _ACT,
        "payload": None,
        "advice": "Its sentence says what was expected: set the header to that, or have its producer mended.",
        "as_it_is": {
            **_CHECK,
            "sendable": False,
            "code": _LETTER["code"],
            "detail": _LETTER["detail"],
            "id": None,
            "headers": [],
            "differences": [],
            "due_at": [],
        },
        "acts": [_ACT],
    },
    "LetterCheck": _CHECK,
    "Redriven": {"set": [["delaystream-delay", "15m"]], "note": "typo of release 4.2"},
    "RedrivenTogether": {
        "code": "invalid-delay",
        "set": [["delaystream-delay", "15m"]],
        "dry_run": True,
    },
    "LettersLook": {
        "total": 240,
        "refused": {"missing-destination": 2},
        "samples": [{"letter": _LETTER, "check": _CHECK}],
        "at_to": "2030-01-31T09:00:00.000Z",
    },
    "LetterRun": {
        "run": "9f3b1c0e6d5a4f7d8e2b1a0c3d4e5f60",
        "stage": "running",
        "actor": "lena",
        "note": "typo of release 4.2",
        "asked_at": "2030-01-31T09:00:00.000Z",
        "total": 240,
        "standing": {"accepted": 57, "rejected": 1},
        "refused": {"missing-destination": 2},
    },
    "PreviewBody": _PREVIEW,
    "Problem": _PROBLEM,
}
"""By the name of the schema."""
