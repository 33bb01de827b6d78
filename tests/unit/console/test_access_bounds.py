"""How much may be asked, and under which names: counted, in bounded memory."""

from __future__ import annotations

import pytest

from delaystream.console.access import limits
from delaystream.console.access.hosts import Hosts
from delaystream.console.access.limits import Bounds, Buckets, Limits, TooManyOfOneCaller
from delaystream.console.access.proxies import Proxies


def test_a_bucket_is_used_up_and_fills_again() -> None:
    buckets = Buckets(per_second=2, burst=3, most=10)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a", 0.0) == 0.5
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 0.25) == 0.25
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.take("a", 0.5) > 0
    assert [buckets.take("a", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    buckets = Buckets(per_second=1, burst=1, most=10)
    assert buckets.take("a", 10.0) == 0.0
    assert buckets.take("a", 5.0) > 0
    assert buckets.take("a", 5.0) > 0


def test_whoever_is_quiet_for_longest_is_forgotten() -> None:
    buckets = Buckets(per_second=0.001, burst=1, most=100)
    assert buckets.take("busy", 0.0) == 0.0
    for number in range(1_000):
        buckets.take(f"address {number}", 0.0)
        assert buckets.take("busy", 0.0) > 0
        assert len(buckets) <= 100


def test_callers_have_a_rate_each() -> None:
    counted = Limits(Bounds(requests_per_second=5))
    assert [counted.request("a", 0.0) for _ in range(10)] == [0.0] * 10
    assert counted.request("a", 0.0) > 0
    assert counted.request("b", 0.0) == 0.0
    assert Limits(Bounds()).request("a", 0.0) == 0.0


def test_failures_are_counted_by_address_and_by_network_of_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has one address of IPv6 has 2^64 of them."""
    counted = Limits(Bounds(failures_per_minute=1))
    assert counted.failure("10.0.0.1", 0.0) == 0.0
    assert counted.failure("10.0.0.1", 0.0) == 60.0
    assert counted.failure("10.0.0.2", 0.0) == 0.0
    assert counted.failure("2001:db8::1", 0.0) == 0.0
    assert counted.failure("2001:db8::ffff:2", 0.0) > 0
    assert counted.failure("2001:db8:0:1::1", 0.0) == 0.0
    assert counted.failure("::ffff:10.0.0.3", 0.0) == 0.0
    assert counted.failure("::ffff:10.0.0.4", 0.0) == 0.0
    assert counted.failure("no address" * 100, 0.0) == 0.0
    monkeypatch.setattr(limits, "MOST_ADDRESSES", 3)
    bounded = Limits(Bounds())
    for number in range(10):
        bounded.failure(f"10.0.1.{number}", 0.0)
    assert len(bounded._failures) == 3


def test_streams_are_counted_by_caller_while_they_are_open() -> None:
    counted = Limits(Bounds(streams=2))
    with counted.stream("a"), counted.stream("a"):
        assert not counted.may_stream("a")
        assert counted.may_stream("b")
        with pytest.raises(TooManyOfOneCaller), counted.stream("a"):
            pass
    assert counted.may_stream("a")
    assert not counted._streams


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8643", "127.0.0.1", "127.0.0.1:1", "[::1]:8643", "localhost.", "127.9.9.9"],
)
def test_loopback_is_asked_by_its_own_names(host: str) -> None:
    assert Hosts().allows(host)
    assert not Hosts(loopback=False).allows(host)


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8643",
        "a@localhost", "localhost@evil.example", "localhost:x", "[::1", "localhost/", "localhost ", "0",
        "localhost:99999", "[::ffff:10.0.0.1]", "localhost#.evil.example", "localhost\\.evil.example",
        "2130706433", "10.0.0.1",
    ],
)  # fmt: skip
def test_other_names_are_not_those_of_loopback(host: str) -> None:
    """A page of another site that has its own name resolve to 127.0.0.1 is told by it."""
    assert not Hosts().allows(host)


def test_further_names_are_allowed_as_they_are() -> None:
    hosts = Hosts(["Console.Example.Org"])
    assert hosts.allows("console.example.org")
    assert hosts.allows("CONSOLE.example.org:443")
    assert not hosts.allows("x.console.example.org")
    assert not hosts.allows("example.org")


def test_an_origin_is_the_console_itself_or_a_further_name() -> None:
    hosts = Hosts(["console.example.org"])
    assert hosts.allows_origin("http://localhost:8643", "localhost:8643")
    assert hosts.allows_origin("https://console.example.org", "localhost:8643")
    for origin in ("null", "", "http://localhost:8080", "https://evil.example", "file://", "http://[", "x"):
        assert not hosts.allows_origin(origin, "localhost:8643"), origin


# -- who stands in between -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("believed", "headers", "address"),
    [
        # Unless somebody is believed, whoever asks cannot say where from.
        ((), ["10.0.0.1"], "127.0.0.1"),
        (("10.0.0.0/8",), ["192.0.2.1"], "127.0.0.1"),
        (("127.0.0.1",), [], "127.0.0.1"),
        (("127.0.0.1",), ["192.0.2.1"], "192.0.2.1"),
        # What the caller wrote itself stands before what the proxy wrote.
        (("127.0.0.1",), ["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
        (("127.0.0.1",), ["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
        (("127.0.0.1",), ["192.0.2.1, 10.0.0.1"], "10.0.0.1"),
        (("127.0.0.0/8", "10.0.0.0/8"), ["198.51.100.9,192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        (("127.0.0.0/8", "10.0.0.0/8"), ["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        (("127.0.0.1",), ["192.0.2.1:51234"], "192.0.2.1"),
        (("127.0.0.1",), ["[2001:db8::7]:443"], "2001:db8::7"),
        (("127.0.0.1",), ["2001:DB8:0::7"], "2001:db8::7"),
        (("127.0.0.1", "::ffff:0:0/96", "10.0.0.0/8"), ["192.0.2.1, ::ffff:10.0.0.1"], "192.0.2.1"),
        # What is no address ends what is believed: the one who wrote it is told.
        (("127.0.0.1",), ["<script>"], "127.0.0.1"),
        (("127.0.0.1",), ["192.0.2.1, unknown"], "127.0.0.1"),
        (("127.0.0.1",), ["192.0.2.1,"], "127.0.0.1"),
    ],
)
def test_what_a_proxy_tells_is_believed_as_far_as_believed_proxies_have_written_it(
    believed: tuple[str, ...], headers: list[str], address: str
) -> None:
    assert Proxies(believed).address("127.0.0.1", headers) == address


def test_a_peer_without_an_address_is_nobody() -> None:
    """A socket of this machine has none; what is said for it is not believed."""
    assert Proxies(["0.0.0.0/0", "::/0"]).address(None, ["192.0.2.1"]) == "unknown"
