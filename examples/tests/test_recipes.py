"""The recipes, on the engine in memory."""

from __future__ import annotations

from datetime import datetime, timedelta

import orjson

from delaystream.client import Delivery, RequestRecord
from delaystream.testing import Environment
from examples.recipes import debounce, digest, reminder, reply_timeout, retry_later


def test_a_reminder_goes_out_after_two_weeks(delaystream_env: Environment) -> None:
    env = delaystream_env
    reminder.invoice_sent(env.client, "17", "ada")
    reminder.invoice_sent(env.client, "18", "bob")
    env.advance(timedelta(days=13))
    reminder.invoice_paid(env.client, "18")
    env.advance(timedelta(days=1))
    [delivery] = env.assert_delivered("reminders", count=1)
    assert (delivery.key, orjson.loads(delivery.value or b"")) == (b"ada", {"invoice": "17"})


def test_an_index_is_built_once_it_is_quiet(delaystream_env: Environment) -> None:
    env = delaystream_env
    for _ in range(10):
        debounce.document_changed(env.client, "readme")
        env.advance(timedelta(seconds=20))
    assert not env.deliveries("index")
    env.advance(timedelta(seconds=10))
    assert len(env.assert_delivered("index", count=1)) == 1


def test_a_reply_that_comes_in_time_is_told_from_one_that_does_not(delaystream_env: Environment) -> None:
    env = delaystream_env
    wait = timedelta(seconds=1)
    for order in ("1", "2"):
        reply_timeout.payment_requested(env.client, order)
    env.advance(timedelta(minutes=29))
    assert reply_timeout.payment_came(env.client, "1", wait=wait)
    env.advance(timedelta(minutes=2))
    assert not reply_timeout.payment_came(env.client, "2", wait=wait)
    [delivery] = env.assert_delivered("payment-timeouts", count=1)
    assert delivery.key == b"2"


def test_a_digest_holds_what_happened_within_an_hour_of_the_first(delaystream_env: Environment) -> None:
    env = delaystream_env
    comments: dict[str, list[str]] = {}
    sent: list[list[str]] = []
    env.consume(
        "digests", lambda delivery: sent.append(digest.digest(comments, (delivery.key or b"").decode()))
    )
    for minute in range(0, 100, 20):
        digest.commented(env.client, comments, "ada", f"at {minute}")
        env.advance(timedelta(minutes=20))
    env.run_until_idle()
    assert sent == [["at 0", "at 20", "at 40"], ["at 60", "at 80"]]


def test_a_bank_that_does_not_answer_is_asked_four_times_and_then_there_is_a_dead_letter(
    delaystream_env: Environment,
) -> None:
    env = delaystream_env
    asked: list[datetime] = []
    letters: list[RequestRecord] = []

    def charge(_: bytes | None) -> None:
        asked.append(env.now)
        raise ConnectionError("no answer")

    def produce(record: RequestRecord) -> None:
        if record.topic == "delay-dead-letters":
            letters.append(record)
        else:
            env.client.send(record)

    def handle(delivery: Delivery) -> None:
        retry_later.charge_or_later(delivery, charge, produce)

    env.consume("charges", handle)
    env.client.schedule("charges", {"amount": 5}, key="ada", delay=timedelta(0))
    env.run_until_idle()
    assert [at - asked[0] for at in asked] == [timedelta(minutes=minutes) for minutes in (0, 1, 3, 7)]
    [letter] = letters
    assert (letter.key, letter.value) == (b"ada", b'{"amount":5}')
    assert dict(letter.headers)["delaystream-error"] == b"attempts-exhausted"
