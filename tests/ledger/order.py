"""The order of deliveries."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from delaystream.core.identity import split_fire_id
from tests.ledger.records import Asked, Fire

if TYPE_CHECKING:
    from tests.ledger.audit import Audit


def judge_order(audit: Audit) -> None:
    """Per request partition and destination: by due time, then as they were asked for.

    It shows on each partition of the destination, whatever the keys. Promised of requests without an id, from
    the moment on at which they are accepted.
    """
    lanes: dict[tuple[object, ...], list[tuple[int, int, int, int, Asked, Fire]]] = defaultdict(list)
    described = {command.subject for command in audit.selections.described}
    for source, fires in audit.fires.items():
        request = audit.asked[source]
        # A request with an id may be accepted by another partition than its own, nobody knows when.
        if request.accepted_ms is None or request.id is not None:
            continue
        # What was held back, triggered or described goes out later, or sooner, than others.
        if audit.selections.may_hold(request) or source in described:
            continue
        for fire in fires:
            record = fire.record
            if record.appended_ms is None or record.topic != request.destination:
                continue
            place = (request.partition, record.topic, record.partition)
            name = split_fire_id(fire.fire_id)
            if name is None or isinstance(name.index, str):
                continue  # it is found to be damaged elsewhere
            rank = (record.offset, fire.due_ms, request.offset, name.index)
            lanes[place].append((*rank, request, fire))
    for lane in lanes.values():
        lane.sort(key=lambda entry: entry[0])
        for number, (_, due_ms, offset, index, request, _) in enumerate(lane):
            accepted_ms = request.accepted_ms or 0
            for earlier in reversed(lane[:number]):
                appended_ms = earlier[5].record.appended_ms or 0
                if appended_ms <= accepted_ms:
                    break
                if earlier[1:4] > (due_ms, offset, index):
                    audit.report.disordered.append(
                        f"{request.source}[{index}] due {due_ms}, accepted {accepted_ms}, came after "
                        f"{earlier[4].source}[{earlier[3]}] due {earlier[1]}, appended {appended_ms}"
                    )
                    break
