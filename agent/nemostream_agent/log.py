"""The programs' logger."""

import logging

logger = logging.getLogger("nemostream.agent")
