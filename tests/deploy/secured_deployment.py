"""Applications on a broker with ACLs: topics made by the super user, workers with their role's rights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from delaystream.config import Settings
from delaystream.topics.access import Acl, Role, users
from tests.deploy.secured_broker import SecuredBroker, Way
from tests.integration.harness import Deployment


class SecuredDeployment(Deployment):
    """An application whose commands and workers come as a user of the broker."""

    def __init__(
        self,
        broker: SecuredBroker,
        directory: Path,
        *,
        way: Way = "SCRAM-SHA-512",
        user: str = "worker",
        **settings: str,
    ) -> None:
        super().__init__(broker.kafka, directory, partitions=1, **settings)
        self.broker = broker
        self.way: Way = way
        self.user = user
        self.settings.setdefault(
            "DELAYSTREAM_DESTINATIONS_ALLOW", f"{self.topic('out')},{self.topic('more-*')}"
        )

    def environment(self, name: str = "") -> dict[str, str]:
        """As of any application, but for how it comes to Kafka."""
        plain = super().environment(name)
        if not self.user:
            return plain
        return plain | self.broker.environment(self.way, self.user)

    def as_super_user(self) -> Deployment:
        """The same application, on the listener where nobody is asked for a name."""
        other = SecuredDeployment(self.broker, self.directory, way=self.way, user="", **self.settings)
        other.__dict__.update({**self.__dict__, "user": ""})
        return other

    def rights(self, role: Role) -> tuple[Acl, ...]:
        """What `topics/topics.json` gives to a role, for this application's names."""
        settings = Settings(
            app_id=self.app_id,
            request_topics=(self.requests,),
            commands_topic=self.commands,
            changelog_topic=self.changelog,
            events_topic=self.events,
            dead_letters_topic=self.dead_letters,
            receipts_topic=self.receipts,
            destinations_allow=tuple(self.settings["DELAYSTREAM_DESTINATIONS_ALLOW"].split(",")),
        )
        [found] = [user for user in users(settings, {role: self.user}) if user.role == role]
        return found.acls

    def allow(self, acls: Iterable[Acl]) -> None:
        """Give this application's user these rights, and no others."""
        self.broker.forbid(self.user)
        self.broker.allow(self.user, acls)
