"""Other systems' header languages: a record written for one of them, read as a request of ours.

`by_name` finds one; `delaystream.dialects.translation` says what each of them is. Opt-in, by request topic.
"""

from delaystream.dialects.registry import NAMES, by_name, filled
from delaystream.dialects.translation import Dialect, Translated

__all__ = ["NAMES", "Dialect", "Translated", "by_name", "filled"]
