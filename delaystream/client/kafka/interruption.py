"""Ctrl-C where confluent-kafka has put an error of its own in its place."""

from __future__ import annotations

from delaystream.client.requests.records import RequestRecord


def unmasked(error: BaseException, record: RequestRecord) -> BaseException:
    """What is to be raised where `produce` has raised a TypeError or a SystemError for a record.

    Its C code looks for signals while it reads the headers. What a signal's handler raises there is lost, and
    a TypeError says that a name is no text. Of a record whose parts are what they should be that is not so:
    then it was an interruption, and nothing was sent.
    """
    return KeyboardInterrupt() if _is_sound(record) else error


def _is_sound(record: RequestRecord) -> bool:
    headers = [isinstance(name, str) and isinstance(value, bytes | None) for name, value in record.headers]
    return (
        isinstance(record.topic, str)
        and isinstance(record.key, bytes | None)
        and isinstance(record.value, bytes | None)
        and all(headers)
    )
