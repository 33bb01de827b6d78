"""The settings, and where their values come from.

`load()` merges flag > environment > file > default into one frozen `Settings` and keeps each origin.
"""

from delaystream.config.errors import ConfigurationError
from delaystream.config.layers import Loaded, load
from delaystream.config.origin import Origin
from delaystream.config.settings import Settings, environment_name

__all__ = ["ConfigurationError", "Loaded", "Origin", "Settings", "environment_name", "load"]
