"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from nemostream import transcribe
from nemostream.__main__ import app, main
from nemostream.models.bundle import Bundle
from nemostream.protocol import Samples
from tests.clips import clip, path
from tests.speech import utterance

MONDAY = str(path("monday"))


def call(*args: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(args), input=stdin)


def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run the command; it must say one sentence on standard error, nothing on standard output, and exit with 1."""
    monkeypatch.setattr(sys, "argv", ["nemostream", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and out == ""
    assert err.startswith("nemostream: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def wav(file: Path, samples: Samples) -> Path:
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file


def test_without_flags_the_text_alone_is_on_standard_output() -> None:
    done = subprocess.run([sys.executable, "-m", "nemostream", "transcribe", MONDAY], capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert lines and all(line and line == line.strip() for line in lines)
    assert done.stderr == b""


def test_a_language_that_the_model_lacks_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fails(monkeypatch, capsys, "transcribe", "--language", "fr", MONDAY)
    assert "speaks en, not fr" in said


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).parent / "nemostream"
    done = subprocess.run([script, "models"], capture_output=True, check=True)
    assert b"en-starter" in done.stdout


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """onnxruntime's telemetry keeps an id of the machine in the user's cache; with it off there is none."""
    silent = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment = {**silent, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "nemostream", "transcribe", str(path("music"))]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert not list(tmp_path.rglob("*"))


def test_standard_input_is_a_file_too() -> None:
    assert call("transcribe", "-", stdin=path("monday").read_bytes()).stdout == call("transcribe", MONDAY).stdout


@pytest.mark.parametrize("chunk", ["80", "160", "560", "1120"])
def test_json_lines_are_interims_then_finals(chunk: str) -> None:
    lines = [json.loads(x) for x in call("transcribe", "--json", "--chunk-ms", chunk, MONDAY).stdout.splitlines()]
    kinds = [x["type"] for x in lines]
    assert set(kinds) == {"interim", "final"} and kinds[-1] == "final"
    plain = call("transcribe", "--chunk-ms", chunk, MONDAY).stdout.split("\n")
    assert [x["text"] for x in lines if x["type"] == "final"] == [x for x in plain if x]
    for line in lines:
        assert set(line) == {"type", "text", "start", "end", "words"}
        for word in line["words"]:
            assert set(word) == {"text", "start", "end", "confidence"}
            assert 0 <= word["start"] < word["end"] and 0 < word["confidence"] <= 1


def test_long_silence_can_be_skipped(tmp_path: Path) -> None:
    """The clip behind a minute of silence: its words at their times, for few steps."""
    late = [np.zeros(60 * 16_000, np.float32), clip("monday"), np.zeros(32_000, np.float32)]
    file = wav(tmp_path / "late.wav", np.concatenate(late))
    lines = [json.loads(x) for x in call("transcribe", "--skip-silence", "--json", str(file)).stdout.splitlines()]
    assert 60 <= lines[0]["start"] <= 61.5
    core = transcribe.open_file_stream(None, None, None, None, skip_silence=True)
    for _ in transcribe.run(core, file):
        pass
    (group,) = core.groups.values()
    assert group.counters.steps * group.load.chunk_seconds <= len(clip("monday")) / 16_000 + 3


def test_keyterms_change_which_words_are_heard(random_bundle: Bundle) -> None:
    """Of a random model, which is sure of nothing."""
    command = "transcribe", "--decoder", "ctc", "--model", str(random_bundle.path), MONDAY
    terms = "then con and of pro reason in is sun this http pyth ex the com function github zone end".split()
    plain = call(*command).stdout
    assert plain and call(*command, *(x for term in terms for x in ("--keyterm", term))).stdout != plain


def test_a_language_is_asked_for_and_the_one_that_was_heard_is_told(
    kind_bundle: Callable[[str], Bundle], tmp_path: Path
) -> None:
    file = wav(tmp_path / "toy.wav", np.concatenate([utterance(seed)[1] for seed in range(3)]))
    command = "transcribe", "--json", "--model", str(kind_bundle("prompt").path), str(file)
    spoken = {language: call(*command, "--language", language).stdout for language in ("en", "hi")}
    assert spoken["en"] != spoken["hi"]
    told = {json.loads(line).get("language") for line in "".join(spoken.values()).splitlines()}
    assert told & {"en-US", "hi-IN", "de-DE"}


def test_subtitles() -> None:
    srt, vtt = call("transcribe", "--srt", MONDAY).stdout, call("transcribe", "--vtt", MONDAY).stdout
    assert srt.startswith("1\n00:00:0") and " --> " in srt
    assert vtt.startswith("WEBVTT\n\n00:00:0") and "," not in vtt.splitlines()[2]


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_rate_and_stereo_are_accepted(tmp_path: Path, rate: int, channels: int) -> None:
    import av

    file = tmp_path / "clip.wav"
    with av.open(str(file), "w") as out:
        track = out.add_stream("pcm_s16le", rate=rate, layout="mono" if channels == 1 else "stereo")
        convert = av.AudioResampler("s16", "mono" if channels == 1 else "stereo", rate)
        with av.open(MONDAY) as source:
            for frame in source.decode(audio=0):
                for part in convert.resample(frame):
                    out.mux(track.encode(part))
        out.mux(track.encode(None))
    assert len(call("transcribe", str(file)).stdout.split()) >= 2


def test_what_was_pushed_does_not_depend_on_the_files_frames(tmp_path: Path) -> None:
    """The text of a file is that of its samples, however the container cuts them."""
    core = transcribe.open_file_stream(None, 160, None, None)
    events = [e for batch, _, _ in transcribe.run(core, path("monday")) for e in batch]
    finals = [e.text for e in events if type(e).__name__ == "Final"]
    assert "\n".join(finals) == call("transcribe", "--chunk-ms", "160", MONDAY).stdout.strip()


def test_convert_makes_a_bundle_that_transcribes(toy_nemo: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    said = call("convert", str(toy_nemo), str(out), "--precision", "int8").stdout
    assert "80, 160, 560, 1120 ms" in said and "int8" in said and "fp32" not in said
    assert call("transcribe", "--model", str(out), MONDAY).exit_code == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("transcribe", "missing.wav"), "missing.wav does not exist"),
        (("transcribe", __file__), "cannot be read as audio"),
        (("transcribe", "."), "is a folder"),
        (("transcribe", "--model", "nobody", MONDAY), "nobody"),
        (("transcribe", "--model", "nobody/nothing", MONDAY), "run: nemostream download nobody/nothing"),
        (("transcribe", "--chunk-ms", "90", MONDAY), "it offers 80, 160, 560, 1120"),
        (("transcribe", "--decoder", "beam", MONDAY), "beam"),
        (("transcribe", "--precision", "fp64", MONDAY), "fp64"),
        (("convert", "missing.nemo", "out"), "missing.nemo"),
        (("convert", MONDAY, "out"), "monday.opus"),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], says: str
) -> None:
    assert says in fails(monkeypatch, capsys, *args)


def test_a_cut_bundle_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy_bundle: Bundle, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(toy_bundle.path, cut)
    graph = cut / "encoder.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    assert "encoder.int8.onnx" in fails(monkeypatch, capsys, "transcribe", "--model", str(cut), MONDAY)


def test_a_video_without_sound_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import av

    file = tmp_path / "silent.mkv"
    with av.open(str(file), "w") as out:
        track = out.add_stream("mpeg4", rate=25)
        track.width = track.height = 16
        for _ in range(5):
            out.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        out.mux(track.encode(None))
    assert "no audio track" in fails(monkeypatch, capsys, "transcribe", str(file))


def test_plans_are_built_once_for_a_gpu_that_is_elsewhere(
    kind_bundle: Callable[[str], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = kind_bundle("hybrid_prompt")
    command = ["plan", str(bundle.path), "--target", "sm89", "--max-streams", "2", "--precision", "fp16"]
    first = call(*command)
    assert first.exit_code == 0, first.output
    made = [Path(line) for line in first.stdout.splitlines()]
    name = bundle.info.name
    assert [f.name.rpartition("-")[0] for f in made] == [f"{name}-80ms-fp16", f"{name}-1120ms-fp16"]
    before = [f.stat().st_mtime_ns for f in made]
    assert call(*command).stdout == first.stdout and [f.stat().st_mtime_ns for f in made] == before


def test_plans_that_cannot_be_built_are_refused(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fails(monkeypatch, capsys, "plan", str(toy_bundle.path))
    assert "TensorRT computes on a GPU, and there is none" in said
    said = fails(monkeypatch, capsys, "plan", str(toy_bundle.path), "--target", "sm90")
    assert "not sm90; run pip install 'livekit-plugins-nemo[tensorrt]'" in said
    assert "int8 is no precision" in call("plan", "--precision", "int8").stderr


def test_the_plans_of_the_page_are_asked_for_as_it_says() -> None:
    """What it names needs a GPU, or minutes."""
    page = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text()
    found = re.findall(r"nemostream plan (.*?)(?:`|\n)", page)
    assert len(found) == 2
    for line in found:
        assert get_command(app).commands["plan"].make_context("plan", shlex.split(line))  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [["transcribe", MONDAY], ["calibrate"], ["serve"]])
def test_a_gpu_that_is_not_here_is_refused_at_once(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "finds no GPU" in fails(monkeypatch, capsys, *command, "--device", "cuda")
    assert "tpu is no device; there are cpu, cuda" in call(*command, "--device", "tpu").stderr
