"""What `python -m livekit.agents download-files` brings: the models that NEMOSTREAM_MODEL names, before any job runs.

NEMOSTREAM_MODEL="nvidia/parakeet_realtime_eou_120m-v1" python -m livekit.agents download-files
"""

from __future__ import annotations

import os
from functools import partial

from nemostream.errors import UnknownModel
from nemostream.models import catalog

from .log import logger


def download_files() -> None:
    """Download the models that NEMOSTREAM_MODEL names, parted by spaces or commas. None: the embedded one ships.

    Raises:
        NemostreamError: one of them cannot be had; see catalog.download.
    """
    wanted = os.environ.get("NEMOSTREAM_MODEL", "").replace(",", " ").split()
    if not wanted:
        logger.info(
            "NEMOSTREAM_MODEL names no model: nothing to download, the embedded one is %s", catalog.resolve(None)
        )
    for name in wanted:
        try:
            folder = catalog.resolve(name)
        except UnknownModel:
            folder = catalog.download(name, progress=partial(logger.info, "%s: %s", name))
        logger.info("%s is here: %s", name, folder)
