"""The command `nemostream`, forked from a process that has imported its libraries: a fifth of the time of a new one.

done = nemostream("download", "toys/toy", env=environment, folder=tmp_path)
done.returncode, done.stdout, done.stderr
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess

from nemostream.__main__ import main

FORKS = multiprocessing.get_context("forkserver")
# Not huggingface_hub itself, which reads the environment when it is imported; what it imports, as far as it is there.
FORKS.set_forkserver_preload([__name__, "nemostream.models.catalog", "httpx", "httpx2", "yaml", "tqdm", "fsspec"])


def nemostream(*args: str, env: dict[str, str], folder: Path, timeout: float = 120) -> CompletedProcess[str]:
    """Run the command to its end; `folder` takes what it prints."""
    out, err = folder / "stdout", folder / "stderr"
    process = FORKS.Process(target=_run, args=(args, env, out, err))
    process.start()
    process.join(timeout)
    assert process.exitcode is not None, "it did not end"
    return CompletedProcess(args, process.exitcode, out.read_bytes().decode(), err.read_bytes().decode())


def _run(args: tuple[str, ...], env: dict[str, str], out: Path, err: Path) -> None:
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["nemostream", *args]
    main()
