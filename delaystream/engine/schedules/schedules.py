"""The life of ids on one partition: what defines, changes, answers and describes schedules, put together."""

from __future__ import annotations

from delaystream.engine.output.events import Events
from delaystream.engine.output.letters import Letters
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules.answers import Answers
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.schedules.changes import Changes
from delaystream.engine.schedules.commands import Commands
from delaystream.engine.schedules.definitions import Definitions
from delaystream.engine.schedules.describe import Descriptions
from delaystream.engine.schedules.immediate import Deliveries
from delaystream.engine.schedules.quotas import Quotas


class Schedules:
    """What accepting and firing use of it."""

    def __init__(self, context: Context, letters: Letters, events: Events) -> None:
        self.arming = Arming(context.settings, context.state)
        self.answers = Answers(letters, events)
        self.descriptions = Descriptions(context.state, context.tenants)
        self.deliveries = Deliveries(context)
        self.quotas = Quotas(context, self.deliveries)
        changes = Changes(context, self.arming, self.answers, self.deliveries)
        self.commands = Commands(context, self.arming, self.answers, changes, self.descriptions)
        self.definitions = Definitions(
            context, self.deliveries, self.arming, self.answers, self.commands, changes, self.quotas
        )
