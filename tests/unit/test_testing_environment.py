"""What a test of a service has of delaystream: the real engine, the real client, and time that it moves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from delaystream.client import Delivery, ReceiptTimeout, RejectedError
from delaystream.testing import Environment, RunawayError, environment

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
NOW = timedelta()
START = datetime(2030, 1, 1, tzinfo=UTC)


def due(deliveries: list[Delivery]) -> list[timedelta]:
    """When each was due, from the start on."""
    return [delivery.due_at - START for delivery in deliveries if delivery.due_at is not None]


# -- time


def test_the_reminder_goes_out_after_a_day_and_not_before() -> None:
    with environment() as env:
        env.client.schedule("reminders", {"user": 7}, id="reminder-7", delay=DAY)
        env.advance(DAY - timedelta(milliseconds=1))
        assert env.deliveries("reminders") == []
        env.advance(timedelta(milliseconds=1))
        [reminder] = env.deliveries("reminders")
        assert json.loads(reminder.value or b"") == {"user": 7}
        assert reminder.schedule_id == "reminder-7"
        assert reminder.due_at == reminder.fired_at == START + DAY
        assert reminder.lateness == NOW


def test_time_is_what_the_test_says_and_stands_still_meanwhile() -> None:
    start = datetime(2024, 3, 30, 22, 15, tzinfo=UTC)
    with environment(start=start) as env:
        assert env.now == start
        env.client.schedule("t", b"x", delay=HOUR)
        env.deliveries("t")
        assert env.now == start
        env.advance(90 * MINUTE)
        assert env.now == start + 90 * MINUTE
        env.advance_to(start + DAY)
        assert env.now == start + DAY


def test_no_clock_of_pythons_is_touched() -> None:
    before = time.time()
    with environment() as env:
        env.advance(1000 * DAY)
        assert before <= time.time() < before + 60
        assert datetime.now(UTC) < START
        assert time.monotonic() < time.monotonic() + 1


def test_time_does_not_go_back() -> None:
    with environment() as env:
        with pytest.raises(ValueError, match="forward"):
            env.advance(-MINUTE)
        with pytest.raises(ValueError, match="forward"):
            env.advance_to(START - MINUTE)


def test_a_start_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        environment(start=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point


def test_each_fire_of_a_schedule_happens_at_its_own_time() -> None:
    with environment() as env:
        env.client.schedule("ticks", b"t", id="hourly", every=HOUR)
        env.advance(1000 * DAY)
        ticks = env.deliveries("ticks")
        assert due(ticks) == [HOUR * number for number in range(1, 24_001)]
        assert [tick.fired_at for tick in ticks] == [tick.due_at for tick in ticks]
        assert {tick.lateness for tick in ticks} == {NOW}


def test_a_schedule_follows_the_clock_of_its_time_zone() -> None:
    with environment(start=datetime(2030, 3, 29, tzinfo=UTC)) as env:
        env.client.schedule("reports", b"r", id="daily", cron="0 9 * * *", timezone="Europe/Berlin")
        env.advance(4 * DAY)
        hours = [report.due_at.hour for report in env.deliveries("reports") if report.due_at is not None]
        assert hours == [8, 8, 7, 7]  # clocks change on 31 March


def test_run_until_idle_goes_on_until_nothing_is_pending() -> None:
    with environment() as env:
        env.client.schedule("a", b"1", delay=DAY)
        env.client.schedule("a", b"2", id="two", delay=40 * DAY)
        env.client.schedule("a", b"3", id="thrice", every=DAY, max_fires=3)
        env.run_until_idle()
        assert env.now == START + 40 * DAY
        assert [delivery.value for delivery in env.deliveries("a")] == [b"1", b"3", b"3", b"3", b"2"]
        env.run_until_idle()
        assert env.now == START + 40 * DAY


def test_run_until_idle_follows_what_handlers_schedule() -> None:
    with environment() as env:

        def again(delivery: Delivery) -> None:
            number = int(delivery.value or b"")
            if number < 5:
                env.client.schedule("steps", b"%d" % (number + 1), delay=HOUR)

        env.consume("steps", again)
        env.client.schedule("steps", b"1", delay=HOUR)
        env.run_until_idle()
        assert env.now == START + 5 * HOUR


def test_run_until_idle_leaves_what_is_paused() -> None:
    with environment() as env:
        env.client.schedule("a", b"1", id="one", delay=DAY)
        env.client.pause("one")
        env.run_until_idle()
        assert env.now == START


def test_run_until_idle_says_which_schedules_never_end() -> None:
    with environment() as env:
        env.client.schedule("a", b"1", id="for-ever", every=HOUR)
        env.client.schedule("a", b"1", id="some-day", delay=3650 * DAY)
        with pytest.raises(RunawayError) as raised:
            env.run_until_idle(most=100)
        assert env.now == START + 100 * HOUR
        assert "100 due times have passed by 2030-01-05T04:00:00Z" in str(raised.value)
        assert "what recurs never ends" in str(raised.value)
        assert "'for-ever'" in str(raised.value)
        assert "'some-day'" not in str(raised.value)


# -- what there is


def test_what_was_sent_is_seen_at_once() -> None:
    with environment() as env:
        env.client.schedule("emails", {"to": "ada"}, id="mail", key="ada", delay=DAY, tags=["a", "b"])
        found = env.assert_scheduled(
            id="mail", next_at=DAY, destination="emails", key="ada", value={"to": "ada"}, tags=["b"]
        )
        assert found.next_at == START + DAY
        assert found.status == "pending"
        env.assert_scheduled(id="mail", next_at=START + DAY)
        env.client.cancel("mail")
        env.refute_scheduled(id="mail")
        env.assert_scheduled(id="mail", status="cancelled")


@pytest.mark.parametrize(
    "different",
    [
        {"id": "other"},
        {"next_at": 2 * DAY},
        {"destination": "letters"},
        {"key": "bob"},
        {"value": {"to": "bob"}},
        {"tags": ["a", "z"]},
        {"every": HOUR},
        {"cron": "0 9 * * *"},
        {"status": "paused"},
        {"request_topic": "mails"},
        {"fire_count": 1},
        {"source": "delay-requests/0/17"},
        {"timezone": "Europe/Berlin"},
    ],
    ids=lambda different: next(iter(different)),
)
def test_each_expectation_is_held(different: dict[str, object]) -> None:
    with environment() as env:
        env.client.schedule("emails", {"to": "ada"}, id="mail", key="ada", delay=DAY, tags=["a", "b"])
        env.assert_scheduled(id="mail")
        [name] = different
        with pytest.raises(AssertionError) as raised:
            env.assert_scheduled(**different)  # type: ignore[arg-type]
        assert f"differs in {name}" in str(raised.value)
        assert "'mail' to emails, next at 2030-01-02T00:00:00Z (in 1d)" in str(raised.value)
        env.refute_scheduled(**different)  # type: ignore[arg-type]


def test_requests_without_an_id_are_found_too() -> None:
    with environment() as env:
        accepted = env.client.schedule("emails", b"hello", key="ada", delay=[HOUR, DAY])
        found = env.assert_scheduled(destination="emails", next_at=HOUR, value=b"hello")
        assert (found.id, found.source) == (None, accepted.source.text)
        env.advance(HOUR)
        env.assert_scheduled(source=accepted.source.text, next_at=START + DAY)
        env.advance(DAY)
        env.refute_scheduled()


def test_what_may_be_expected_is_known_by_name() -> None:
    with environment() as env:
        env.client.schedule("emails", b"hello", delay=DAY)
        with pytest.raises(TypeError, match="no field due; there is cron, destination"):
            env.assert_scheduled(due=DAY)  # type: ignore[call-arg]


def test_what_nothing_can_be_like_is_not_refuted() -> None:
    """Else a slip of the pen would pass for ever."""
    with environment() as env:
        with pytest.raises(TypeError, match="no field due"):
            env.refute_scheduled(due=DAY)  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="no time zone"):
            env.refute_scheduled(next_at=datetime(2030, 1, 2))  # noqa: DTZ001 - that is the point


def test_a_failed_assertion_says_what_is_closest_and_what_there_is() -> None:
    with environment() as env:
        env.client.schedule("emails", b"1", id="a", delay=HOUR)
        env.client.schedule("reports", b"2", id="b", cron="0 9 * * MON", timezone="Europe/Berlin")
        with pytest.raises(AssertionError) as raised:
            env.assert_scheduled(id="b", next_at=DAY, destination="reports")
        assert str(raised.value) == (
            "Nothing is scheduled with id='b', next_at=in 1d, destination='reports', "
            "at 2030-01-01T00:00:00Z.\n"
            "The closest differs in next_at:\n"
            "  'b' to reports, next at 2030-01-07T08:00:00Z (in 6d8h), cron '0 9 * * MON' Europe/Berlin, "
            "value '2'\n"
            "There is\n"
            "  'a' to emails, next at 2030-01-01T01:00:00Z (in 1h), value '1'\n"
            "  'b' to reports, next at 2030-01-07T08:00:00Z (in 6d8h), cron '0 9 * * MON' Europe/Berlin, "
            "value '2'"
        )


def test_a_failed_assertion_says_that_it_is_over() -> None:
    with environment() as env:
        env.client.schedule("emails", b"1", id="a", delay=HOUR)
        env.advance(DAY)
        with pytest.raises(AssertionError) as raised:
            env.assert_scheduled(id="a")
        assert "Nothing is scheduled at all.\nIt is over:\n  'a' to emails, fired" in str(raised.value)


def test_a_failed_assertion_says_what_was_refused() -> None:
    """A request that a worker refuses is a dead letter, and nobody is told who did not wait for a receipt."""
    with environment() as env:
        env.client.schedule("emails", b"1", id="a", delay=HOUR)
        env.client.reschedule("a", delay=DAY, if_version=7)
        with pytest.raises(AssertionError) as raised:
            env.assert_scheduled(id="a", next_at=DAY)
        assert "Among the dead letters (1):\n  delay-requests/0/" in str(raised.value)
        assert "version-changed: " in str(raised.value)


def test_a_refutation_says_what_there_is() -> None:
    with environment() as env:
        env.client.schedule("emails", b"1", id="a", delay=HOUR)
        with pytest.raises(AssertionError) as raised:
            env.refute_scheduled(destination="emails")
        assert str(raised.value) == (
            "Something is scheduled with destination='emails', at 2030-01-01T00:00:00Z:\n"
            "  'a' to emails, next at 2030-01-01T01:00:00Z (in 1h), value '1'"
        )


def test_who_forgets_to_advance_is_told() -> None:
    with environment() as env:
        env.client.schedule("emails", b"1", id="a", delay=DAY)
        with pytest.raises(AssertionError) as raised:
            env.assert_delivered("emails", count=1)
        assert str(raised.value) == (
            "Expected 1 deliveries on 'emails' by 2030-01-01T00:00:00Z, and there are 0.\n"
            "Pending for it:\n"
            "  'a' to emails, next at 2030-01-02T00:00:00Z (in 1d), value '1'\n"
            "Time stands still until the test moves it: env.advance(timedelta(...))."
        )
        env.advance(DAY)
        assert len(env.assert_delivered("emails")) == 1


def test_nothing_was_delivered_to_a_topic_that_nobody_has_named() -> None:
    with environment() as env:
        assert env.deliveries("nowhere") == []
        with pytest.raises(AssertionError, match="Nothing is pending for it"):
            env.assert_delivered("nowhere")


def test_schedules_are_listed_by_what_fires_next_and_those_that_are_over_last() -> None:
    with environment() as env:
        for number, name in enumerate(["over", "paused", "late", "soon"]):
            env.client.schedule("t", b"", id=name, delay=[MINUTE, DAY, 2 * DAY, HOUR][number])
        env.client.schedule("t", b"", delay=DAY)
        env.client.pause("paused")
        env.advance(MINUTE)
        assert [one.id for one in env.scheduled()] == ["soon", None, "late", "paused", "over"]


def test_events_tell_what_has_happened() -> None:
    with environment() as env:
        env.client.schedule("emails", b"1", id="a", delay=HOUR)
        env.advance(DAY)
        assert [(event.type.value, event.at_ms) for event in env.events()] == [
            ("scheduled", START.timestamp() * 1000),
            ("fired", (START + HOUR).timestamp() * 1000),
        ]


def test_a_rejection_before_sending_is_an_error() -> None:
    with environment() as env:
        with pytest.raises(RejectedError) as raised:
            env.client.schedule("emails", b"1", id="a", cron="99 * * * *")
        assert raised.value.code == "invalid-cron"
        assert env.scheduled() == []
        assert env.dead_letters() == []


def test_a_request_is_held_against_the_time_in_the_environment() -> None:
    """Not against that of the machine: what has passed for one is ahead for the other."""
    with environment(start=datetime(2001, 1, 1, tzinfo=UTC)) as env:
        accepted = env.client.schedule(
            "emails", b"1", id="a", at=datetime(2002, 1, 1, tzinfo=UTC), wait=MINUTE
        )
        assert accepted.outcome == "scheduled"
    with environment(start=datetime(2090, 1, 1, tzinfo=UTC)) as env:
        env.client.schedule("emails", b"1", at=env.now + DAY)
        env.advance(DAY)
        env.assert_delivered("emails")


def test_a_rejection_by_receipt_is_an_error_and_a_dead_letter() -> None:
    with environment() as env:
        env.client.schedule("emails", b"1", id="a", delay=HOUR)
        with pytest.raises(RejectedError) as raised:
            env.client.schedule("emails", b"1", id="a", delay=HOUR, if_exists="reject", wait=MINUTE)
        assert raised.value.code == "already-exists"
        [letter] = env.dead_letters()
        assert letter.code == "already-exists"
        assert raised.value.receipt is not None
        assert letter.source == raised.value.receipt.source
        assert letter.delivery.value == b"1"


def test_receipts_come_without_time_passing() -> None:
    with environment() as env:
        accepted = env.client.schedule("emails", b"1", id="a", delay=HOUR, wait=MINUTE)
        assert (accepted.outcome, accepted.due_at) == ("scheduled", (START + HOUR,))
        described = env.client.describe("a")
        assert described is not None
        assert described.next_at == START + HOUR
        assert env.now == START


def test_a_receipt_that_does_not_come_is_waited_for_in_virtual_time() -> None:
    with environment() as env:
        env.log.topics["delay-receipts"].refusal = "not authorized"
        with pytest.raises(ReceiptTimeout):
            env.client.schedule("t", b"1", id="a", delay=DAY, wait=MINUTE)
        assert START + MINUTE <= env.now < START + HOUR
        env.assert_scheduled(id="a")


def test_every_verb_of_the_client_works() -> None:
    with environment() as env:
        client = env.client
        client.schedule("t", b"1", id="a", every=HOUR)
        client.pause("a", note="for now")
        env.assert_scheduled(id="a", status="paused")
        env.advance(DAY)
        assert env.deliveries("t") == []
        client.resume("a")
        client.trigger("a")
        env.advance(NOW)
        assert len(env.deliveries("t")) >= 1
        client.update("a", every=2 * HOUR)
        env.assert_scheduled(id="a", every=2 * HOUR)
        client.handle("a").cancel()
        env.refute_scheduled(id="a")


def test_batches_work() -> None:
    with environment() as env:
        with env.client.batch() as batch:
            for number in range(1_000):
                batch.schedule("t", b"%d" % number, delay=HOUR)
        env.advance(HOUR)
        assert len(env.deliveries("t")) == 1_000


# -- consumers


def test_a_handler_is_called_with_each_delivery_at_its_time() -> None:
    with environment() as env:
        seen: list[tuple[bytes | None, datetime]] = []
        env.consume("emails", lambda delivery: seen.append((delivery.value, env.now)))
        env.client.schedule("emails", b"1", delay=HOUR)
        env.client.schedule("emails", b"2", delay=DAY)
        env.client.schedule("emails", b"3", delay=2 * DAY)
        env.advance(DAY)
        assert seen == [(b"1", START + HOUR), (b"2", START + DAY)]


def test_a_handler_is_given_what_came_before_it() -> None:
    with environment() as env:
        env.client.schedule("emails", b"1", delay=HOUR)
        env.advance(DAY)
        seen: list[Delivery] = []
        env.consume("emails", seen.append)
        env.advance(NOW)
        assert [delivery.value for delivery in seen] == [b"1"]


def test_a_handler_schedules_more_and_waits_for_receipts() -> None:
    with environment() as env:
        seen: list[datetime] = []

        def remind(delivery: Delivery) -> None:
            seen.append(env.now)
            if len(seen) < 3:
                accepted = env.client.schedule("reminders", b"again", id="again", delay=DAY, wait=MINUTE)
                assert accepted.outcome in ("scheduled", "replaced")

        env.consume("reminders", remind)
        env.client.schedule("reminders", b"first", delay=DAY)
        env.advance(10 * DAY)
        assert seen == [START + DAY, START + 2 * DAY, START + 3 * DAY]


def test_what_a_handler_raises_advance_raises_at_that_time() -> None:
    with environment() as env:
        seen: list[bytes | None] = []

        def handle(delivery: Delivery) -> None:
            seen.append(delivery.value)
            if delivery.value == b"2":
                raise LookupError("no such user")

        env.consume("emails", handle)
        for number in (1, 2, 3):
            env.client.schedule("emails", b"%d" % number, delay=HOUR * number)
        with pytest.raises(LookupError, match="no such user"):
            env.advance(DAY)
        assert env.now == START + 2 * HOUR
        assert seen == [b"1", b"2"]
        env.advance(DAY)
        assert seen == [b"1", b"2", b"3"]


def test_what_is_left_to_handle_is_handled_at_the_end() -> None:
    def fail(delivery: Delivery) -> None:
        raise LookupError("nobody had looked")

    def test() -> None:
        with environment() as env:
            env.consume("emails", fail)
            env.client.schedule("emails", b"1", delay=NOW)

    with pytest.raises(LookupError, match="nobody had looked"):
        test()


def test_a_failure_of_the_test_is_what_is_told() -> None:
    def fail(delivery: Delivery) -> None:
        raise LookupError("not this")

    def test() -> None:
        with environment() as env:
            env.consume("emails", fail)
            env.client.schedule("emails", b"1", delay=NOW)
            raise AssertionError("this")

    with pytest.raises(AssertionError, match=r"^this$"):
        test()


def test_time_stands_still_for_a_handler() -> None:
    with environment() as env:
        env.consume("emails", lambda delivery: env.advance(HOUR))
        env.client.schedule("emails", b"1", delay=HOUR)
        with pytest.raises(RuntimeError, match="in the handler of 'emails'"):
            env.advance(DAY)


def test_a_handler_may_let_time_pass_in_another_environment() -> None:
    with environment() as one, environment() as other:
        one.consume("emails", lambda delivery: other.advance(DAY))
        other.client.schedule("letters", b"", delay=DAY)
        one.client.schedule("emails", b"", delay=HOUR)
        one.advance(HOUR)
        other.assert_delivered("letters", count=1)


def test_handlers_that_go_round_in_circles_are_stopped() -> None:
    with environment() as env:
        env.consume("ping", lambda delivery: env.client.schedule("pong", b"", delay=NOW))
        env.consume("pong", lambda delivery: env.client.schedule("ping", b"", delay=NOW))
        env.client.schedule("ping", b"", delay=HOUR)
        with pytest.raises(RunawayError) as raised:
            env.advance(DAY)
        assert "1000 rounds at 2030-01-01T01:00:00Z" in str(raised.value)
        env.abandon()


def test_many_deliveries_at_one_moment_are_no_circle() -> None:
    with environment() as env:
        seen: list[Delivery] = []
        env.consume("t", seen.append)
        with env.client.batch() as batch:
            for _ in range(3_000):
                batch.schedule("t", b"", delay=HOUR)
        env.advance(HOUR)
        assert len(seen) == 3_000


def test_a_coroutine_function_is_not_consumed_with_where_nobody_awaits_it() -> None:
    async def handle(delivery: Delivery) -> None: ...

    with environment() as env:
        with pytest.raises(TypeError, match="async with environment"):
            env.consume("emails", handle)
        env.consume("emails", lambda delivery: asyncio.sleep(0))
        env.client.schedule("emails", b"", delay=HOUR)
        with pytest.raises(TypeError, match="async with environment"):
            env.advance(HOUR)


# -- tenants, topics, partitions


def test_each_request_topic_has_ids_of_its_own() -> None:
    with environment(request_topics=["billing-requests", "mail-requests"]) as env:
        billing, mail = env.client_of("billing-requests"), env.client_of("mail-requests")
        billing.schedule("t", b"billing", id="a", delay=HOUR)
        mail.schedule("t", b"mail", id="a", delay=DAY)
        env.assert_scheduled(id="a", request_topic="billing-requests", next_at=HOUR)
        env.assert_scheduled(id="a", request_topic="mail-requests", next_at=DAY)
        mail.cancel("a")
        env.assert_scheduled(id="a", request_topic="billing-requests")
        env.refute_scheduled(id="a", request_topic="mail-requests")
        with pytest.raises(ValueError, match="'other' is not a request topic; there is billing-requests"):
            env.client_of("other")


def test_many_partitions_are_as_one() -> None:
    with environment(partitions=5, topics={"t": 3}) as env:
        for number in range(100):
            env.client.schedule("t", b"", id=f"id-{number}", key=f"key-{number}", delay=HOUR * number)
        env.assert_scheduled(id="id-42", next_at=42 * HOUR)
        env.advance(200 * HOUR)
        found = env.deliveries("t")
        assert {delivery.partition for delivery in found} == {0, 1, 2}
        assert [delivery.schedule_id for delivery in found] == [f"id-{number}" for number in range(100)]


def test_a_handler_is_given_what_many_partitions_have_in_the_order_of_delivery() -> None:
    with environment(topics={"t": 3}) as env:
        for number in range(30):
            env.client.schedule("t", b"%d" % number, key=f"key-{number}", delay=HOUR * (number + 1))
        env.advance(2 * DAY)
        seen: list[Delivery] = []
        env.consume("t", seen.append)
        env.advance(NOW)
        assert [int(delivery.value or b"") for delivery in seen] == list(range(30))
        assert {delivery.partition for delivery in seen} == {0, 1, 2}


def test_there_is_a_request_topic_and_it_has_a_partition() -> None:
    with pytest.raises(ValueError, match="no request topic"):
        environment(request_topics=[])
    with pytest.raises(ValueError, match="partitions is 0"):
        environment(partitions=0)


def test_a_destination_that_is_missing_waits_as_on_a_cluster() -> None:
    with environment(topics={"there": 1}, create_topics=False) as env:
        env.client.schedule("there", b"1", delay=HOUR)
        env.client.schedule("missing", b"2", id="a", delay=HOUR)
        env.advance(2 * HOUR)
        env.assert_delivered("there", count=1)
        env.assert_scheduled(id="a", destination="missing")
        env.advance(2 * DAY)
        assert [letter.code for letter in env.dead_letters()] == ["quarantined"]


# -- side by side


def test_environments_do_not_know_of_each_other() -> None:
    with environment() as one, environment(start=START + DAY) as other:
        one.client.schedule("t", b"one", id="a", delay=HOUR)
        other.advance(DAY)
        assert other.deliveries("t") == []
        assert (one.now, other.now) == (START, START + 2 * DAY)
        other.refute_scheduled()
        one.assert_scheduled(id="a")


def test_one_context_may_be_entered_again_and_begins_anew() -> None:
    made = environment()
    with made as env:
        env.client.schedule("t", b"", id="a", delay=HOUR)
        with pytest.raises(RuntimeError, match="open already"):
            made.__enter__()
        env.assert_scheduled(id="a")
    with made as env:
        env.refute_scheduled(id="a")


def test_each_thread_may_have_one() -> None:
    def hundred_days(number: int) -> int:
        with environment() as env:
            env.client.schedule("t", b"", id=f"{number}", every=DAY)
            env.advance(100 * DAY)
            return len(env.deliveries("t"))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(hundred_days, range(8))) == [100] * 8


def test_threads_may_share_one() -> None:
    """As an application does that is called by a test client: its end points run in threads of their own."""
    with environment() as env:

        def send(number: int) -> None:
            for count in range(50):
                env.client.schedule("t", b"", id=f"{number}-{count}", delay=HOUR, wait=MINUTE)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(send, range(4)))
        env.advance(HOUR)
        assert len(env.deliveries("t")) == 200


def test_a_handler_may_have_another_thread_use_the_client() -> None:
    with environment() as env:

        def handle(delivery: Delivery) -> None:
            if delivery.value == b"first":
                thread = threading.Thread(
                    target=env.client.schedule, args=("t", b"second"), kwargs={"delay": HOUR, "wait": MINUTE}
                )
                thread.start()
                thread.join(30)
                assert not thread.is_alive()

        env.consume("t", handle)
        env.client.schedule("t", b"first", delay=HOUR)
        env.advance(DAY)
        assert [delivery.value for delivery in env.deliveries("t")] == [b"first", b"second"]


def test_it_works_in_a_thread_that_runs_an_event_loop() -> None:
    async def test() -> None:
        with environment() as env:
            env.client.schedule("t", b"", id="a", delay=DAY, wait=MINUTE)
            env.advance(DAY)
            env.assert_delivered("t", count=1)
        await asyncio.sleep(0)

    asyncio.run(test())


def test_it_is_over_when_its_with_is_over() -> None:
    with environment() as env:
        env.client.schedule("t", b"", delay=HOUR)
        env.advance(HOUR)
    with pytest.raises(RuntimeError, match="closed"):
        env.advance(HOUR)
    with pytest.raises(RuntimeError, match="closed"):
        env.run_until_idle()
    assert len(env.deliveries("t")) == 1  # what was is still there to look at


def test_all_its_tasks_end_with_it(recwarn: pytest.WarningsRecorder) -> None:
    def made() -> Environment:
        with environment(partitions=3) as env:
            env.client.schedule("t", b"", delay=HOUR)
        return env

    env = made()
    assert all(life.done() for life in env._worker._lives)
    assert not recwarn.list
