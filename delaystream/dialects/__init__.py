"""Other systems' header languages: a record written for one of them, read as a request of ours.

`by_name` finds a dialect; `delaystream.dialects.translation` defines what one is. A request topic opts in.
"""

from delaystream.dialects.registry import NAMES, by_name, filled
from delaystream.dialects.translation import Dialect, Translated

__all__ = ["NAMES", "Dialect", "Translated", "by_name", "filled"]
