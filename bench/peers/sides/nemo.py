"""NeMo's own cache-aware RNN-T pipeline (nemo.collections.asr.inference) on the CPU, driven chunk by chunk.

Settings are those of its cache_aware_rnnt.yaml but for what is slower or not comparable: CPU and float32 (the only
precision that it has there), no biasing for each stream, as many slots as streams are measured, and no end of
utterance, so that text is not cut. At 80 ms the pipeline takes 16 of the 17 mel frames of a chunk, because
int(0.17 / 0.01) is 16, and writes little that is right; `repair` sets the number.
"""

from __future__ import annotations

from typing import Any

import torch
from nemo.collections.asr.inference.factory.pipeline_builder import PipelineBuilder  # type: ignore[import-not-found]
from nemo.collections.asr.inference.streaming.framing.request import Frame  # type: ignore[import-not-found]
from nemo.collections.asr.inference.streaming.framing.request_options import ASRRequestOptions  # type: ignore[import-not-found]
from omegaconf import OmegaConf  # type: ignore[import-not-found]

from bench.peers.sides import ALIGN_SAMPLES, Clock, Samples, Talk, Task, Took, version

SLOTS = 32
LATER_SAMPLES = 7 * 160
"""By how much the first chunk of the pipeline begins later than ours: it pads mel frames in front."""
CONFIG = """
asr:
  device: cpu
  device_id: 0
  compute_dtype: float32
  use_amp: false
  decoding:
    strategy: greedy_batch
    preserve_alignments: false
    fused_batch_size: -1
    greedy:
      use_cuda_graph_decoder: false
      enable_per_stream_biasing: false
      preserve_frame_confidence: false
      max_symbols: 10
      ngram_lm_model: null
      ngram_lm_alpha: 0.0
      boosting_tree: {model_path: null, key_phrases_file: null, key_phrases_list: null, key_phrase_items_list: null,
                      source_lang: en}
      boosting_tree_alpha: 0.0
itn: {input_case: lower_cased, whitelist: null, overwrite_cache: false, max_number_of_permutations_per_split: 729,
      left_padding_size: 4, batch_size: 32, n_jobs: 16}
confidence:
  exclude_blank: true
  aggregation: mean
  method_cfg: {name: entropy, entropy_type: tsallis, alpha: 0.5, entropy_norm: exp}
endpointing: {stop_history_eou: -1, residue_tokens_at_end: 2}
streaming:
  sample_rate: 16000
  word_boundary_tolerance: 4
  use_cache: true
  use_feat_cache: true
  chunk_size_in_secs: null
  request_type: frame
matmul_precision: high
log_level: 40
pipeline_type: cache_aware
asr_decoding_type: rnnt
enable_itn: false
enable_nmt: false
asr_output_granularity: segment
cache_dir: null
lang: null
return_tail_result: false
"""


class Nemo:
    """Side. What the pipeline does for a stream besides, its text so far above all, is part of the step."""

    def __init__(self, task: Task, talk: Samples) -> None:
        self.versions = {name: version(name) for name in ("nemo-toolkit", "torch", "numpy")}
        torch.set_num_threads(1)
        config = OmegaConf.create(CONFIG)
        config.asr.model_name = task.files
        config.streaming.batch_size = config.streaming.num_slots = SLOTS
        config.streaming.att_context_size = [70, task.chunk_ms // 80 - 1]
        self._pipeline: Any = PipelineBuilder.build_pipeline(config)
        repair(self._pipeline)
        self._count = round(self._pipeline.chunk_size_in_secs * 16000)
        assert self._count == task.chunk_samples, "the pipeline's chunk is another"
        self._samples = talk
        self._features = Took(0.0, 0.0, 0.0)

    def open(self, streams: int) -> None:
        self._pipeline.open_session()
        # A session that ends leaves its slots taken.
        self._pipeline.init_context_manager()
        self._pipeline.init_bufferer_for_cache_aware_streaming()
        self._time_features()
        self._streams, self._first = range(streams), True
        self._talk = Talk(self._samples, streams)

    def step(self) -> Took:
        heard = [torch.tensor(self._talk.next(stream, self._count)) for stream in self._streams]
        self._features = Took(0.0, 0.0, 0.0)
        step = Clock()
        frames = [self._frame(stream, samples, self._first) for stream, samples in enumerate(heard)]
        self._pipeline.transcribe_step(frames)
        self._first = False
        features = self._features
        return Took(features.features, step.cpu - features.features, step.passed - features.passed)

    def transcribe(self, clips: list[Samples]) -> list[str]:
        self.open(0)
        clips = [clip[ALIGN_SAMPLES - LATER_SAMPLES :] for clip in clips]
        texts = [""] * len(clips)
        longest = max(map(len, clips))
        for begin in range(0, longest, self._count):
            frames = []
            for stream, clip in enumerate(clips):
                if begin < len(clip):
                    piece = torch.zeros(self._count)
                    part = torch.tensor(clip[begin : begin + self._count])
                    piece[: len(part)] = part
                    last = begin + self._count >= len(clip)
                    frames.append(self._frame(stream, piece, begin == 0, last, len(part)))
            for frame, output in zip(frames, self._pipeline.transcribe_step(frames), strict=True):
                texts[frame.stream_id] = output.final_transcript or output.partial_transcript
        return [" ".join(text.split()) for text in texts]

    def _frame(self, stream: int, samples: Any, first: bool, last: bool = False, length: int = -1) -> Any:
        options = ASRRequestOptions() if first else None
        return Frame(
            samples=samples,
            stream_id=stream,
            is_first=first,
            is_last=last,
            length=self._count if length < 0 else length,
            options=options,
        )

    def _time_features(self) -> None:
        """Have the time that features take noted apart, as it is for the others."""
        bufferer = self._pipeline.bufferer
        update = type(bufferer).update.__get__(bufferer)

        def timed(frames: Any) -> Any:
            clock = Clock()
            result = update(frames)
            self._features = Took(clock.cpu, 0.0, clock.passed)
            return result

        bufferer.update = timed


def repair(pipeline: Any) -> None:
    """Have all mel frames of a chunk used at 80 ms, too."""
    frames = round(pipeline.buffer_size_in_secs / pipeline.window_stride)
    pipeline.expected_feature_buffer_len = frames
    pipeline.buffer_size_in_secs = frames * pipeline.window_stride + 1e-9
