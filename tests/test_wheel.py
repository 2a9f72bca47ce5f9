"""What `pip install livekit-plugins-nemo` brings: the three packages, the model, and little else."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # The environment's own hatchling: nothing is fetched.
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def test_the_wheel_holds_three_packages_and_the_embedded_model(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info" not in n}
    assert tops == {"livekit", "nemostream", "nemostream_agent"}
    # Namespace packages, as LiveKit's own plugins have them.
    assert "livekit/__init__.py" not in names and "livekit/plugins/__init__.py" not in names
    for name in (
        "livekit/plugins/nemo/stt.py",
        "livekit/plugins/nemo/py.typed",
        "nemostream/assets/en-starter/model.json",
        "nemostream/assets/en-starter/tokenizer.model",
        "nemostream/assets/silero-vad/LICENSE",
        "nemostream_agent/captions.py",
    ):
        assert name in names
    assert not [n for n in names if "train" in n.split("/")[0] or "/tests/" in n]


def test_the_wheel_is_under_20_mb(wheel: Path) -> None:
    assert sum(i.file_size for i in zipfile.ZipFile(wheel).infolist()) < 20_000_000


def test_it_works_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside the dependencies, without the checkout on the path."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from nemostream.models.catalog import resolve; from nemostream.model import Model; "
        "from livekit.plugins import nemo; import nemostream; "
        "print(nemostream.__file__, Model.load(resolve(None), None, 1).chunks_ms)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); " + code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path) in done.stdout and "80, 160, 560, 1120" in done.stdout


def test_the_default_install_is_small(wheel: Path) -> None:
    """livekit-agents, numpy, and five light packages; torch and NeMo only in extras."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    requires = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.M)
    plain = {re.split(r"[<>=\[; ]", r)[0] for r in requires if "extra ==" not in r}
    light = {"onnxruntime", "msgspec", "sentencepiece", "soxr", "threadpoolctl"}
    assert plain == {"livekit-agents", "numpy"} | light
    convert = {re.split(r"[<>=\[; ]", r)[0] for r in requires if re.search("extra == .convert.", r)}
    assert convert == {"torch", "onnx", "huggingface-hub"}, "what docs/models.md says is needed to download a model"


def test_importing_the_engine_needs_numpy_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); import nemostream; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "onnxruntime", "livekit", "av", "soxr", "msgspec", "sentencepiece", "typer"}
    assert not heavy & set(re.findall(r"'(\w+)'", done.stdout))
