"""Sends many requests one behind the other, and tells what came of each: `send --lines`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import typer

from delaystream.cli.output import complain, say, say_json, tell
from delaystream.cli.rendering import number_of
from delaystream.cli.requests import lines, replies
from delaystream.cli.requests.workers import Lookout
from delaystream.cli.wording import in_options
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.cli.options import Waiting
    from delaystream.client import Accepted, Batch, Pending, Receipt, RequestRecord
    from delaystream.config import Settings

#: Most requests that are on their way at once.
_IN_FLIGHT: Final = 1_000
#: Most destinations that are looked up at the end.
_LOOKED_UP: Final = 1_000
_BAD_LINE: Final = "bad-line"
_NO_RECEIPT: Final = "no-receipt"


class _OnItsWay(NamedTuple):
    number: int
    request: RequestRecord
    pending: Pending[Accepted]


class Many:
    """One run. Without `keep_going` the first bad line ends it: those before it stand, the rest is unsent."""

    def __init__(
        self, settings: Settings, shared: lines.Shared, waiting: Waiting, *, keep_going: bool
    ) -> None:
        self._settings = settings
        self._shared = shared
        self._as_json = waiting.output == "json"
        self._keep_going = keep_going
        self._reply_to = waiting.topic(settings) if waiting.wait else None
        self._timeout_s = waiting.timeout or replies.ONE_TIMEOUT_S
        self._on_their_way: deque[_OnItsWay] = deque()
        self._destinations: dict[str, None] = {}
        self._sent = self._refused = self._unanswered = 0
        #: the bad line behind which nothing was sent
        self._stopped_at: int | None = None

    def show(self, read: Iterable[lines.Line | None]) -> None:
        """The records as they would be sent. Ends the command with 65 if a line is bad."""
        from delaystream.client import RejectedError
        from delaystream.client.requests.checking import Checker

        checker = Checker.of(self._shared.topic, self._settings)
        for line in read:
            if line is None:
                continue
            try:
                request = lines.parsed(line, self._shared).request
                checker.check(request)
            except (lines.LineError, RejectedError) as error:
                if not self._goes_on_after(line, error):
                    break
            else:
                due = replies.check(self._settings, request, "schedule")
                replies.show(request, due, "json" if self._as_json else "human")
        self._end()

    def send(self, read: Iterable[lines.Line | None]) -> None:
        """Send them. Ends the command with 65 if one was refused, with 75 if a receipt did not come."""
        from delaystream.client import Client, UnavailableError

        batch: Batch | None = None
        try:
            with Client(
                settings=self._settings, request_topic=self._shared.topic, reply_to=self._reply_to
            ) as client:
                batch = client.batch()
                self._send_all(read, batch)
            for destination in self._destinations:
                replies.warn_of_missing(self._settings, destination)
        except KeyboardInterrupt:
            self._interrupted(batch)
        except UnavailableError:
            complain(f"{self._standing(batch)}.")
            raise
        self._end()

    def _send_all(self, read: Iterable[lines.Line | None], batch: Batch) -> None:
        from delaystream.client import RejectedError

        wait = None if self._reply_to is None else timedelta(seconds=self._timeout_s)
        for line in read:
            if line is None:
                # Nothing more has come yet: what is there is told meanwhile.
                self._settle(0)
                continue
            try:
                found = lines.parsed(line, self._shared)
                pending = batch.send(found.request, wait=wait)
            except (lines.LineError, RejectedError, ValueError) as error:
                if self._goes_on_after(line, error):
                    continue
                break
            self._on_their_way.append(_OnItsWay(line.number, found.request, pending))
            if found.destination is not None and len(self._destinations) < _LOOKED_UP:
                self._destinations[found.destination] = None
            self._settle(len(self._on_their_way) - _IN_FLIGHT)
        if wait is not None and self._on_their_way:
            with Lookout(self._settings):
                self._settle(len(self._on_their_way))
        self._settle(len(self._on_their_way))

    def _goes_on_after(self, line: lines.Line, error: Exception) -> bool:
        """Tell of a bad line; whether those behind it are sent."""
        from delaystream.client import RejectedError

        code, sentence = _BAD_LINE, str(error)
        if isinstance(error, RejectedError):
            code = error.code
            sentence = f"a worker would refuse it as {code}: {error.detail}"
        self._refused += 1
        if self._as_json:
            say_json({"line": line.number, "error": {"code": code, "detail": sentence}})
        complain(f"line {line.number}: not sent, {in_options(sentence) if code == _BAD_LINE else sentence}")
        if not self._keep_going:
            self._stopped_at = line.number
        return self._keep_going

    def _settle(self, at_least: int) -> None:
        """Tell what came of the oldest: of so many of them, waited for, and of those that are done."""
        while self._on_their_way and (at_least > 0 or self._on_their_way[0].pending.done()):
            self._tell(self._on_their_way[0])
            self._on_their_way.popleft()
            at_least -= 1

    def _tell(self, one: _OnItsWay) -> None:
        from delaystream.cli.requests.answers import receipt_line
        from delaystream.client import ReceiptTimeout, RejectedError

        sent = one.pending.sent()
        receipt: Receipt | None = None
        problem: str | None = None
        try:
            receipt = one.pending.result().receipt
        except RejectedError as rejected:
            receipt = rejected.receipt
        except ReceiptTimeout:
            problem = replies.no_receipt(self._settings, sent.source, self._reply_to or "", self._timeout_s)
        self._sent += 1
        self._refused += receipt is not None and receipt.outcome in replies.REFUSED
        self._unanswered += problem is not None
        if self._as_json:
            told: dict[str, Any] = {"line": one.number, **replies.place_of(sent)}
            if receipt is not None:
                told["receipt"] = receipt.body
            if problem is not None:
                told["error"] = {"code": _NO_RECEIPT, "detail": problem}
            say_json(told)
        elif receipt is not None:
            say(f"{sent.source.text}  {receipt_line(receipt)}")
        else:
            said = "sent" if problem else replies.due(self._settings, one.request, sent.timestamp_ms)
            say(f"{sent.source.text}  {said}")
        if problem is not None:
            complain(f"line {one.number}: {problem}")

    def _end(self) -> None:
        """The sum, where not all went well, and the exit code."""
        if not self._refused and not self._unanswered:
            return
        rest = "" if self._stopped_at is None else f"; nothing behind line {self._stopped_at} was sent"
        complain(
            f"{number_of(self._sent, 'request')} sent, {self._refused} refused, {self._unanswered} without a "
            f"receipt{rest}"
        )
        raise typer.Exit(ExitCode.REFUSED if self._refused else ExitCode.TIMEOUT)

    def _standing(self, batch: Batch | None) -> str:
        answers = [one.pending.answer() for one in self._on_their_way]
        acknowledged = [one for one in answers if one is not None and not isinstance(one, Exception)]
        stand = self._sent + len(acknowledged)
        doubtful = 0 if batch is None else batch.handed_over - stand
        also = f", {doubtful} more may be on their way" if doubtful > 0 else ""
        last = f" Lines up to {self._on_their_way[0].number - 1} were reported" if self._on_their_way else ""
        what = f"{number_of(stand, 'request')} stood on {self._shared.topic} by then"
        return f"{what} and stay in force{also}.{last}"

    def _interrupted(self, batch: Batch | None) -> NoReturn:
        """End the command after Ctrl-C, and say what is on its way."""
        if batch is None or not batch.handed_over:
            raise KeyboardInterrupt
        tell("")
        complain(f"interrupted. {self._standing(batch)}".rstrip("."))
        raise typer.Exit(ExitCode.TIMEOUT) from None
