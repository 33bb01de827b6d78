"""Bounds on a request."""

from delaystream.core.limits import Limits


def test_the_defaults_are_those_documented() -> None:
    limits = Limits()
    assert limits.max_delay_ms == 3650 * 24 * 60 * 60 * 1000
    assert limits.max_value_bytes == 1024 * 1024
    assert limits.max_headers == 100
    assert limits.max_header_bytes == 32 * 1024
    assert limits.max_list == 100
    assert limits.max_id_bytes == 256
    assert limits.max_key_bytes == 32 * 1024
