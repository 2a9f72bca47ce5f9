"""What is not a usable .nemo is refused in one sentence that says what, where and what to do."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nemostream.errors import CheckpointError
from nemostream.models.checkpoint import CONFIG, WEIGHTS, read_checkpoint, write_checkpoint

Members = dict[str, bytes]


def members(path: Path) -> Members:
    with tarfile.open(path) as archive:
        return {
            info.name.removeprefix("./"): archive.extractfile(info).read()  # type: ignore[union-attr]
            for info in archive
            if info.isreg()
        }


def rewritten(source: Path, target: Path, change: Callable[[Members], None], mode: str = "w") -> Path:
    content = members(source)
    change(content)
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


def configured(source: Path, target: Path, path: str, value: Any) -> Path:
    def change(content: Members) -> None:
        raw = yaml.safe_load(content[CONFIG])
        node, keys = raw, path.split(".")
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value
        content[CONFIG] = yaml.safe_dump(raw).encode()

    return rewritten(source, target, change)


def weighted(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    def rewrite(content: Members) -> None:
        state = torch.load(io.BytesIO(content[WEIGHTS]), weights_only=True)
        change(state)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content[WEIGHTS] = buffer.getvalue()

    return rewritten(source, target, rewrite)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path).model()
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and message.endswith(".")
    return message


def test_what_is_written_is_read_back_compressed_or_not(toy_nemo: Path, tmp_path: Path) -> None:
    original = read_checkpoint(toy_nemo)
    raw = yaml.safe_load(members(toy_nemo)[CONFIG])
    write_checkpoint(tmp_path / "copy.nemo", raw, original.state, {"a_tokenizer.model": b"x"})
    gz = rewritten(toy_nemo, tmp_path / "gz.nemo", lambda content: None, "w:gz")
    for path in (tmp_path / "copy.nemo", gz):
        copy = read_checkpoint(path)
        assert copy.config == original.config
        assert all(torch.equal(copy.state[name], value) for name, value in original.state.items())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder.att_context_style", "regular"),
        ("encoder.att_context_size", [-1, -1]),
        ("encoder.att_context_size", [[70, 13], [56, 6]]),
        ("encoder.att_context_size", "x"),
        ("encoder.conv_context_size", None),
        ("encoder.causal_downsampling", False),
        ("encoder.conv_norm_type", "batch_norm"),
        ("encoder.subsampling", "striding"),
        ("encoder.subsampling_factor", 4),
        ("encoder.self_attention_model", "abs_pos"),
        ("encoder.n_layers", "many"),
        ("encoder.n_heads", 5),
        ("encoder.dropout", 2),
        ("preprocessor.normalize", "per_feature"),
        ("preprocessor.window_stride", 0.02),
        ("joint.jointnet.activation", "tanh"),
        ("decoder._target_", "nemo.collections.asr.modules.StatelessTransducerDecoder"),
    ],
)
def test_a_model_that_cannot_stream_here_is_refused_by_its_key(
    toy_nemo: Path, tmp_path: Path, key: str, value: Any
) -> None:
    message = refusal(configured(toy_nemo, tmp_path / "changed.nemo", key, value))
    assert key.split(".")[-1] in message


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("model_defaults.initialize_prompt_feature", True, "prompt_dictionary"),
        ("target", "nemo.collections.asr.models.EncDecMultiTalkerRNNTBPEModel", "EncDecMultiTalkerRNNTBPEModel"),
        ("spk_kernel_type", "ff", "multi-talker"),
        ("tokenizer.type", "wpe", "SentencePiece"),
        ("loss.loss_name", "tdt", "tdt"),
        ("encoder", None, "no encoder"),
    ],
)
def test_other_kinds_of_models_are_named(toy_nemo: Path, tmp_path: Path, key: str, value: Any, word: str) -> None:
    assert word in refusal(configured(toy_nemo, tmp_path / "changed.nemo", key, value))


@pytest.mark.parametrize("index", [{}, {"en-US": 128}, {"en-US": "1"}, {7: 1}, {"en-US": True}])
def test_a_prompt_of_another_shape_is_refused(toy_nemo: Path, tmp_path: Path, index: dict[Any, Any]) -> None:
    defaults = {"initialize_prompt_feature": True, "num_prompts": 128, "prompt_dictionary": index}
    assert "prompt_dictionary" in refusal(configured(toy_nemo, tmp_path / "changed.nemo", "model_defaults", defaults))


def test_weights_of_layers_that_nobody_knows_are_refused(toy_nemo: Path, tmp_path: Path) -> None:
    def add(state: dict[str, torch.Tensor]) -> None:
        state["spk_kernels.0.weight"] = torch.zeros(3)

    assert "spk_kernels.0.weight" in refusal(weighted(toy_nemo, tmp_path / "changed.nemo", add))


def test_every_truncation_is_refused(toy_nemo: Path, tmp_path: Path) -> None:
    data = toy_nemo.read_bytes()
    path = tmp_path / "cut.nemo"
    for kept in (0, 1, 511, 5000, 100_000, len(data) // 2, len(data) - 200_000):
        path.write_bytes(data[:kept])
        refusal(path)


def test_a_missing_file_a_folder_and_a_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nemo").write_text("not a tar")
    assert "no such file" in refusal(tmp_path / "none.nemo")
    assert "no such file" in refusal(tmp_path)
    assert "not a readable .nemo" in refusal(tmp_path / "text.nemo")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_member_is_named(toy_nemo: Path, tmp_path: Path, name: str) -> None:
    path = rewritten(toy_nemo, tmp_path / "changed.nemo", lambda content: content.pop(name))  # type: ignore[arg-type, return-value]
    assert f"no {name}" in refusal(path)


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"a: [", b"- 1", b"!!python/object/apply:os.system ['true']"])
def test_a_config_that_is_not_plain_yaml_is_refused(toy_nemo: Path, tmp_path: Path, text: bytes) -> None:
    path = rewritten(toy_nemo, tmp_path / "changed.nemo", lambda content: content.update({CONFIG: text}))
    assert CONFIG in refusal(path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["NEMOSTREAM_TEST_TRACE"],)


def test_a_pickle_is_never_run(toy_nemo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("NEMOSTREAM_TEST_TRACE", str(trace))
    zipped = io.BytesIO()
    torch.save({"encoder": Hostile()}, zipped)
    for data in (pickle.dumps(Hostile()), zipped.getvalue()):
        path = rewritten(toy_nemo, tmp_path / "h.nemo", lambda content, data=data: content.update({WEIGHTS: data}))  # type: ignore[misc]
        assert "more than tensors" in refusal(path)
    assert not trace.exists()


def test_a_link_in_the_place_of_a_member_is_not_followed(toy_nemo: Path, tmp_path: Path) -> None:
    path = tmp_path / "link.nemo"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(CONFIG)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    assert f"no {CONFIG}" in refusal(path)


def test_wrong_weights_are_named(toy_nemo: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.nemo"
    name = "encoder.layers.1.conv.depthwise_conv.weight"
    assert f"{name} is missing" in refusal(weighted(toy_nemo, path, lambda state: state.pop(name)))
    odd = torch.zeros(3)
    assert f"{name} is of shape (3,)" in refusal(weighted(toy_nemo, path, lambda state: state.update({name: odd})))
    extra = {"encoder.layers.1.adapter.weight": odd}
    assert "belongs to no layer" in refusal(weighted(toy_nemo, path, lambda state: state.update(extra)))
    window = "preprocessor.featurizer.window"
    assert window in refusal(weighted(toy_nemo, path, lambda state: state.update({window: odd})))


def test_without_torch_the_error_says_what_to_install(toy_nemo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_torch(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "torch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(CheckpointError, match=r"pip install 'livekit-plugins-nemo\[convert\]'"):
        read_checkpoint(toy_nemo)
