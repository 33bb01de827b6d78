"""What a request says beside what it asks for, held against what was told of its id before.

A request with a `request-id` that the id has answered changes nothing and gets the same outcome; one for
another version, or of a lower deploy, is refused, and none else is. Every command that changes anything gives
the id a version that it never had; nothing else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.ledger.records import Asked, Told

if TYPE_CHECKING:
    from tests.ledger.audit import Audit

_LIVE = frozenset({"pending", "paused"})
#: outcomes with which nothing has changed
_STAYS = frozenset({"kept", "unchanged", "too-late"})
#: refusals that are decided after an id has looked whether it knows the request
_LATER = frozenset(
    {
        "version-changed",
        "deploy-superseded",
        "already-exists",
        "cancelled-earlier",
        "quota-exceeded",
        "too-many-cancels",
    }
)
_REMEMBERED = 16


class _Answer(NamedTuple):
    request_id: str
    outcome: str


class Terms:
    """What one id remembers of the requests about it, event by event."""

    def __init__(self, audit: Audit, id: str) -> None:
        self._audit = audit
        self._id = id
        self.version: int | None = None
        self._versions: set[int] = set()
        self._answered: list[_Answer] = []
        self._declared: tuple[str, int] | None = None
        self._doubtful = False
        """Whether the id may have been forgotten since, with all that."""

    def judge(self, told: Told, request: Asked, status: str | None, *, forgotten: bool) -> bool:
        """Whether a request was repeated: there is nothing more to it then.

        `status` is that of the id before it; it may have been `forgotten`.
        """
        if status is None:
            self._forget()
        elif forgotten:
            self._doubtful = True
        if told.kind == "repeated":
            self._repeated(told, request)
            return True
        if told.kind == "rejected":
            self._refused(told, request, status)
            return False
        if self._answer(request) is not None and not self._doubtful:
            self._wrong(told, f"a request {request.request_id} was answered before")
        if told.facts.get("request_id") != request.request_id:
            self._wrong(told, f"its request-id is {request.request_id}")
        if reason := self._against(request, status):
            self._wrong(told, reason)
        return False

    def happened(self, told: Told, request: Asked, before: str | None, after: str | None) -> None:
        """An outcome was told with which an id that was `before` is `after`."""
        if after is None:
            # Nobody knows it, and there is nothing to remember anything with.
            self._forget()
            return
        outcome = told.kind
        stays = outcome in _STAYS or (before == after and after in ("cancelled", "forestalled"))
        if outcome == "scheduled" or not stays:
            self.changed(told)
        else:
            self._same_version(told)
        if outcome == "unknown" and request.action != "cancel":
            self._is_declared(told)
            return
        if request.declared_by is not None:
            same = self._declared is not None and self._declared[0] == request.declared_by
            known = self._declared[1] if same and self._declared is not None else -1
            deploy = known if request.deploy is None else request.deploy
            self._declared = (request.declared_by, deploy)
        if request.request_id is not None:
            others = [answer for answer in self._answered if answer.request_id != request.request_id]
            self._answered = [*others[1 - _REMEMBERED :], _Answer(request.request_id, outcome)]
        self._is_declared(told, request)

    def changed(self, told: Told) -> None:
        """A command has changed something: the version is another one, and was never there."""
        version = told.facts.get("version")
        if version is None or (version in self._versions and not self._doubtful):
            self._wrong(told, f"versions were {self._versions}, and it is to be a new one")
        else:
            self._versions.add(version)
        self.version = version

    def stays(self, told: Told) -> None:
        """Something has happened that was no command's doing."""
        self._same_version(told)
        self._is_declared(told)

    def _same_version(self, told: Told) -> None:
        version = told.facts.get("version")
        if version == self.version:
            return
        if not self._doubtful or version in self._versions or version is None:
            self._wrong(told, f"it has version {self.version}")
        self._versions.add(version or 0)
        self.version = version

    def _is_declared(self, told: Told, request: Asked | None = None) -> None:
        facts = told.facts
        deploy = facts.get("deploy", -1)
        found = (facts["declared_by"], deploy) if "declared_by" in facts else None
        anew = None
        if request is not None and request.declared_by is not None:
            anew = (request.declared_by, -1 if request.deploy is None else request.deploy)
        if found != self._declared and not (self._doubtful and found in (None, anew)):
            self._wrong(told, f"it was declared by {self._declared}")
        self._declared = found

    def _forget(self) -> None:
        self.version, self._declared = None, None
        self._answered, self._doubtful = [], False
        # A command for many that is at work may reach the id again, in its next life.
        self._versions = set()

    def _answer(self, request: Asked) -> _Answer | None:
        if request.request_id is None:
            return None
        return next((known for known in self._answered if known.request_id == request.request_id), None)

    def _repeated(self, told: Told, request: Asked) -> None:
        known = self._answer(request)
        if known is None:
            self._wrong(told, f"answered were {self._answered}")
            return
        self._same_version(told)
        self._is_declared(told)
        receipt = self._audit.receipts.get(request.source)
        if receipt is not None:
            found = (receipt["outcome"], receipt.get("repeated"), receipt.get("version"))
            if found != (known.outcome, True, self.version):
                self._wrong(told, f"it was answered {known.outcome}, and the receipt says {receipt}")
            self._audit.receipt_names(request, [])

    def _refused(self, told: Told, request: Asked, status: str | None) -> None:
        code = told.facts["code"]
        if code in _LATER and self._answer(request) is not None and not self._doubtful:
            self._wrong(told, f"a request {request.request_id} was answered before")
        if code == "deploy-superseded" and not self._is_superseded(request):
            self._wrong(told, f"it was declared by {self._declared}")
        if code == "version-changed" and not (
            self._is_of_another_version(request, status) or (self._doubtful and request.if_version)
        ):
            self._wrong(told, f"it was {status}, with version {self.version}")

    def _against(self, request: Asked, status: str | None) -> str | None:
        """Why a request that was accepted was to be refused."""
        if self._is_superseded(request) and not self._doubtful:
            return f"it was declared by {self._declared}, and the request is of {request.deploy}"
        if self._is_of_another_version(request, status):
            return f"it was {status}, with version {self.version}, and if-version is {request.if_version}"
        return None

    def _is_superseded(self, request: Asked) -> bool:
        if self._declared is None or request.deploy is None:
            return False
        declared_by, deploy = self._declared
        return declared_by == request.declared_by and deploy > request.deploy

    def _is_of_another_version(self, request: Asked, status: str | None) -> bool:
        if request.if_version is None:
            return False
        if request.if_version == 0:
            return status in _LIVE
        return status in (None, "forestalled") or request.if_version != self.version

    def _wrong(self, told: Told, why: str) -> None:
        self._audit.wrong(self._id, f"{why}: {told}")
