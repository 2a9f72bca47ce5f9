"""Two processes that train one model hear what two do, agree on every weight, and stop together."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.train import heard
from train.trainer import RESUME

LAUNCHER = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
MEAN = """
    import sys
    from pathlib import Path

    import torch

    from train.replicas import Replicas

    replicas = Replicas.join()
    file = Path(sys.argv[1]) / "loaded"
    found = replicas.in_turn(lambda: file.exists() or file.touch())
    weight, bias, unused = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (3,), (1,)))
    weight.grad, bias.grad = torch.full((2, 3), 2.0 + 4 * replicas.rank), torch.arange(3) * (1.0 + replicas.rank)
    sums = replicas.mean([weight, bias, unused], [0.25, float(replicas.rank)])
    torch.save((weight.grad, bias.grad, sums, found), Path(sys.argv[1]) / str(replicas.rank))
    replicas.leave()
"""


def test_gradients_become_their_mean_and_values_their_sum(tmp_path: Path) -> None:
    script = tmp_path / "mean.py"
    script.write_text(textwrap.dedent(MEAN))
    environment = os.environ | {"PYTHONPATH": str(heard.PLUGIN)}
    subprocess.run([sys.executable, *LAUNCHER, str(script), str(tmp_path)], env=environment, check=True)
    results = [torch.load(tmp_path / rank, weights_only=True) for rank in "01"]
    for weight, bias, sums, _ in results:
        assert weight.tolist() == [[4.0] * 3] * 2 and bias.tolist() == [0.0, 1.5, 3.0] and sums == [0.5, 1.0]
    assert [found for *_, found in results] == [None, True]  # the second one loads what the first one made


def test_two_processes_are_one_run_and_hear_what_one_would(tmp_path: Path) -> None:
    few = "--clips", "8", "--threads", "1", "--steps"
    told = heard.small_run(tmp_path / "two", *few, "2", launcher=LAUNCHER)
    assert told.count("saved at step 2") == 1
    heard.small_run(tmp_path / "one", *few, "4")
    two, one = (torch.load(tmp_path / run / RESUME, weights_only=True)["progress"] for run in ("two", "one"))
    assert two["step"] == 2 and two["hours"] == pytest.approx(one["hours"], rel=1e-5)
