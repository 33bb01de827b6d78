"""The header contract's vectors: what each input means is what the code makes of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from delaystream.codec.outgoing import OUTGOING_HEADERS
from delaystream.core.durations import DurationError, parse_duration, simple_duration
from delaystream.core.identity import fire_id as anonymous_fire_id
from delaystream.core.identity import named_fire_id, split_fire_id
from delaystream.core.instants import InstantError, parse_instant, parse_local
from delaystream.core.partitioning import owner_partition, partition_for_key
from delaystream.core.rates import RateError, parse_count
from delaystream.core.recurrence import LocalClock, Recurrence, check, next_after
from delaystream.core.rejection import Rejection
from delaystream.core.request import Action, Request
from tests.unit.header_contract import (
    CONTRACT,
    PREFIX,
    VECTORS,
    as_contract,
    broken,
    content,
    expected,
    headers_of,
    names,
    parsed,
)

REQUESTS: list[dict[str, Any]] = VECTORS["requests"]
REFUSED = [vector for vector in REQUESTS if "code" in vector]
ACCEPTED = [vector for vector in REQUESTS if "request" in vector]


@pytest.mark.parametrize("vector", ACCEPTED, ids=names(ACCEPTED))
def test_a_request_is_understood_as_the_vector_says(vector: dict[str, Any]) -> None:
    """Every field of it."""
    request = parsed(vector)
    assert isinstance(request, Request), request
    assert as_contract(request) == expected(vector)
    record = {**VECTORS["record"], **vector.get("record", {})}
    source = request.source
    assert (source.topic, source.partition, source.offset, source.origin) == (
        record["topic"], record["partition"], record["offset"], ""
    )  # fmt: skip


@pytest.mark.parametrize("vector", REFUSED, ids=names(REFUSED))
def test_a_request_is_refused_as_the_vector_says(vector: dict[str, Any]) -> None:
    """By its code; and what is known of it for its receipt."""
    rejection = parsed(vector)
    assert isinstance(rejection, Rejection), rejection
    assert rejection.code.value == vector["code"], rejection.detail
    told = {
        "id": rejection.id,
        "reply_to": rejection.reply_to,
        "no_receipt": rejection.no_receipt is not None,
        "actor": rejection.actor,
        "note": rejection.note,
    }
    nothing = {"id": None, "reply_to": None, "no_receipt": False, "actor": None, "note": None}
    assert told == nothing | vector.get("refused", {})


def test_each_vector_has_a_name_of_its_own_and_one_verdict() -> None:
    assert [name for name, number in Counter(names(REQUESTS)).items() if number > 1] == []
    assert len(ACCEPTED) + len(REFUSED) == len(REQUESTS)
    assert not [vector["name"] for vector in REQUESTS if "request" in vector and "code" in vector]
    assert all("code" in vector for vector in REQUESTS if "refused" in vector)


def test_every_code_that_a_request_can_have_by_itself_has_vectors() -> None:
    """And no other code has one: they need what a vector does not tell."""
    found = {code for code, told in CONTRACT["codes"].items() if told["found"] == "request"}
    assert {vector["code"] for vector in REFUSED} == found


def test_every_header_has_vectors_of_each_kind() -> None:
    """Accepted, refused, given twice, null; and each action, and each header that is written."""
    accepted = {name for vector in ACCEPTED for name in _control(vector)}
    refused = {vector["name"].partition(":")[0] for vector in REFUSED}
    assert accepted - {name.removeprefix(PREFIX) for name in OUTGOING_HEADERS} == CONTRACT["headers"].keys()
    assert refused >= CONTRACT["headers"].keys()
    for name in CONTRACT["headers"]:
        for kind in ("twice", "null", "not UTF-8", "empty"):
            assert [told for told in names(REQUESTS) if told.startswith(f"{name}: {kind}")]
    assert {vector["request"].get("action", "schedule") for vector in ACCEPTED} == set(Action)
    assert accepted >= {name.removeprefix(PREFIX) for name in OUTGOING_HEADERS}


def test_no_vector_breaks_two_rules_and_the_one_is_that_of_its_code() -> None:
    """Which of two is named is no part of the contract. Of what stands together, the tables tell."""
    defaults = {"default_destination", "default_timezone"}
    for vector in REQUESTS:
        control = _control(vector) & CONTRACT["headers"].keys()
        if control != _control(vector) or defaults & vector.get("settings", {}).keys():
            continue
        contents = {name.lower(): value for name, value in headers_of(vector)}
        action = (contents.get(f"{PREFIX}action") or b"schedule").decode("utf-8", "replace")
        if action in CONTRACT["actions"]:
            assert broken(action, control) <= {vector.get("code")}, vector["name"]


def _control(vector: dict[str, Any]) -> set[str]:
    lower = {name.lower() for name, _ in headers_of(vector)}
    return {name.removeprefix(PREFIX) for name in lower if name.startswith(PREFIX)}


def test_every_field_of_a_request_has_a_vector_with_another_value_than_its_default() -> None:
    told = {name for vector in ACCEPTED for name in vector["request"]}
    as_the_record = {name for name, field in CONTRACT["request"].items() if field["default"] == "record"}
    assert told >= CONTRACT["request"].keys() - as_the_record


@pytest.mark.parametrize("vector", VECTORS["durations"], ids=lambda vector: repr(vector["text"]))
def test_a_duration_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    if vector["value"] is None:
        with pytest.raises(DurationError):
            parse_duration(vector["text"])
        assert simple_duration(vector["text"].encode()) is None
    else:
        assert parse_duration(vector["text"]) == vector["value"]
        assert simple_duration(vector["text"].encode()) in {None, vector["value"]}


@pytest.mark.parametrize("vector", VECTORS["instants"], ids=lambda vector: repr(vector["text"]))
def test_an_instant_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    if vector["value"] is None:
        with pytest.raises(InstantError):
            parse_instant(vector["text"])
    else:
        assert parse_instant(vector["text"]) == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["rates"], ids=lambda vector: repr(vector["text"]))
def test_a_rate_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    if vector["value"] is None:
        with pytest.raises(RateError):
            parse_count(vector["text"])
    else:
        assert parse_count(vector["text"]) == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["local_times"], ids=str)
def test_a_local_time_means_what_the_vector_says(vector: dict[str, Any]) -> None:
    clock = LocalClock(vector["timezone"], vector["dst_gap"], vector["dst_overlap"])
    assert list(clock.instants(parse_local(vector["text"]))) == vector["at_ms"]


@pytest.mark.parametrize("vector", VECTORS["cron_times"], ids=str)
def test_a_cron_expression_means_the_times_that_the_vector_says(vector: dict[str, Any]) -> None:
    after_ms = vector["after_ms"]
    recurrence = Recurrence(
        vector["cron"], 0, vector["timezone"], vector["dst_gap"], vector["dst_overlap"], start_ms=after_ms
    )
    assert check(recurrence, min_interval_ms=1000, max_expression=256) is None
    found: list[int] = []
    while len(found) < len(vector["times_ms"]):
        next_ms = next_after(recurrence, found[-1] if found else after_ms)
        assert next_ms is not None
        found.append(next_ms)
    assert found == vector["times_ms"]


@pytest.mark.parametrize("vector", VECTORS["owners"], ids=lambda vector: str(vector["key"]))
def test_a_key_goes_to_the_partition_that_the_vector_says(vector: dict[str, Any]) -> None:
    """An id has its owner there: its processor, and the partition to send its requests to."""
    key = content(vector["key"])
    assert key is not None
    for partitions, partition in vector["partitions"].items():
        assert partition == (vector["murmur2"] & 0x7FFFFFFF) % int(partitions)
        assert partition_for_key(key, int(partitions)) == partition
        if isinstance(vector["key"], str):
            assert owner_partition(vector["key"], int(partitions)) == partition


@pytest.mark.parametrize("vector", VECTORS["fire_ids"], ids=lambda vector: repr(vector["text"]))
def test_a_fire_id_is_taken_apart_as_the_vector_says(vector: dict[str, Any]) -> None:
    found, parts = split_fire_id(vector["text"]), vector["parts"]
    if parts is None:
        assert found is None
        return
    assert found is not None
    assert (found.of, found.revision, found.index, found.due_ms, found.id) == (
        parts["schedule"], parts["revision"], parts["index"], parts["due_at_ms"], parts["id"]
    )  # fmt: skip
    if found.revision is None:
        assert isinstance(found.index, int)
        assert anonymous_fire_id(found.of, found.index, found.due_ms) == vector["text"]
    else:
        named = named_fire_id(found.of, found.revision, found.index, found.due_ms, found.id or "")
        assert named == vector["text"]
