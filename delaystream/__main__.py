"""`python -m delaystream`."""

import sys

from delaystream.cli import main

sys.exit(main())
