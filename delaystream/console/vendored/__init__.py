"""Scripts of others that the pages serve; `scripts/vendored.py` has their versions, and renews them."""

from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent

RAPIDOC: Final = _HERE / "rapidoc-9.3.8.min.js"
"""Shows the description of the HTTP interface (MIT)."""
HTMX: Final = _HERE / "htmx.org-4.0.1.min.js"
"""Renews parts of pages (0BSD)."""
