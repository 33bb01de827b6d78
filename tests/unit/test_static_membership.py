"""What a worker remembers of having lost its instance id, and who is told not to start it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delaystream.adapters.membership import static_membership
from delaystream.adapters.membership.static_membership import Fencings, Holder, InstanceFenced
from delaystream.exit_codes import ExitCode
from delaystream.testing import VirtualTimeLoop

ROOT = Path(__file__).resolve().parents[2]
OTHER = Holder("twin-1", "delaystream", "10.0.0.7")


def wait_for(fencings: Fencings, holder: Callable[[float], Holder | None]) -> float:
    """Wait for the id in virtual time while it is held as told; for how long that took, s."""
    with VirtualTimeLoop() as loop, pytest.MonkeyPatch.context() as patch:

        async def looked(*_: Any) -> Holder | None:
            return holder(loop.time())

        patch.setattr(static_membership, "holder_of", looked)
        began = loop.time()
        loop.run_until_complete(fencings.wait_for({}, "group", "twin", 45_000))
        return loop.time() - began


def test_an_id_that_was_never_lost_is_taken_at_once(tmp_path: Path) -> None:
    """A restart must not wait for its own session, and is what static membership is for."""
    assert wait_for(Fencings(tmp_path), lambda _: OTHER) == 0


def test_an_id_that_was_lost_is_not_taken_from_who_has_it(tmp_path: Path) -> None:
    Fencings(tmp_path).fenced("twin")
    again = Fencings(tmp_path)
    assert again.count == 1
    with pytest.raises(InstanceFenced, match=r"instance id twin: delaystream on host 10\.0\.0\.7"):
        wait_for(again, lambda _: OTHER)
    # Given another id it is another member.
    again.fenced("other")
    assert wait_for(Fencings(tmp_path), lambda _: OTHER) == 0


def test_an_id_that_is_given_up_is_taken_and_no_more_asked_about(tmp_path: Path) -> None:
    Fencings(tmp_path).fenced("twin")
    assert 30 <= wait_for(Fencings(tmp_path), lambda now_s: OTHER if now_s < 30 else None) < 35
    assert wait_for(Fencings(tmp_path), lambda _: OTHER) == 0
    assert Fencings(tmp_path).count == 1


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"lost": 1}', '{"lost": null, "count": "x"}', "\x00"])
def test_what_cannot_be_read_is_no_reason_to_stay_away(tmp_path: Path, content: str) -> None:
    (tmp_path / "fenced.json").write_text(content)
    fencings = Fencings(tmp_path)
    assert fencings.count == 0
    assert wait_for(fencings, lambda _: OTHER) == 0


def test_a_directory_that_cannot_be_written_does_not_hide_the_reason(tmp_path: Path) -> None:
    """The worker ends for the fencing, whether it can be remembered or not."""
    fencings = Fencings(tmp_path / "gone")
    fencings.fenced("twin")
    assert fencings.count == 1


def test_the_unit_file_does_not_restart_what_needs_a_person() -> None:
    unit = (ROOT / "deploy" / "systemd" / "delaystream.service").read_text()
    [codes] = [line for line in unit.splitlines() if line.startswith("RestartPreventExitStatus=")]
    assert set(codes.partition("=")[2].split()) == {
        str(int(code)) for code in (ExitCode.NO_STORAGE, ExitCode.CONFIGURATION)
    }
