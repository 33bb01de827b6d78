"""Errors of the embedded broker. The message is a sentence that says what to do."""


class BrokerError(Exception):
    """The embedded broker cannot do what was asked; the message is for the person at the terminal."""


class JarError(BrokerError):
    """A jar could not be fetched, or is not the one that the lock names."""


class JavaMissingError(BrokerError):
    """No Java runtime that can run Kafka was found."""


class PortInUseError(BrokerError):
    """Something else listens on the port that was asked for."""


class DataDirInUseError(BrokerError):
    """Another broker works in the data directory."""


class BrokerStartError(BrokerError):
    """The broker's process ended, or did not answer in time."""


class DataDirUnusableError(BrokerStartError):
    """The data directory cannot be made, or written to."""


class PortTakenMeanwhileError(BrokerStartError):
    """Somebody took a port between our check and the broker's start."""
