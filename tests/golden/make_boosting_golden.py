"""NeMo's own answers with boosting trees, for tests/test_boosting.py. Runs where nemo_toolkit[asr] 3.0.0 is installed:

    python tests/golden/make_boosting_golden.py [OUT]          # default: tests/data

Writes golden_boosting.npz, about utterances 0.. + UTTERANCES of the toy at LOOKAHEAD:
    terms.{list}                                           the terms, as NeMo's tokenizer gets them
    {rnnt,ctc}.{list}.{alpha}.{ids,frames,counts}          int16: tokens of the utterances behind one another
    tree.{list}.{scores,next}                              (S, V) of the list's GPUBoostingTreeModel, at alpha 1
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugin")]

from tests.golden.make_golden import batch, load, transducer  # noqa: E402
from tests.speech import utterance  # noqa: E402

UTTERANCES, LOOKAHEAD, ALPHAS = 24, 1, (1.0, 3.0, 6.0)
LISTS = {
    # Words that the toy never says, near to those that it does: what boosting makes of them.
    "near": ["theory", "stopping", "holler", "teste", "calling", "smell", "mode", "working", "plead"],
    # Words that begin alike, end within another, or are one piece: every way to leave a term unfinished.
    "overlapping": ["st", "stop", "stop the", "the", "the stopping", "there", "a", "on", "one", "on a test", "ister"],
    "many": [a + b for a in ("str", "mo", "te", "pl", "ca", "wor", "ba") for b in ("ing", "ed", "ion", "at", "ck", "")],
}


def boosted_rnnt(model: Any, encoded: Any, lengths: Any, terms: list[str], alpha: float) -> list[list[tuple[int, int]]]:
    from nemo.collections.asr.parts.submodules.rnnt_decoding import RNNTDecodingConfig
    from omegaconf import OmegaConf

    config = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(RNNTDecodingConfig)))
    config.strategy = "greedy_batch"
    config.greedy.use_cuda_graph_decoder = False
    config.greedy.boosting_tree.key_phrases_list = terms
    config.greedy.boosting_tree_alpha = alpha
    model.change_decoding_strategy(config, decoder_type="rnnt", verbose=False)
    return transducer(model, encoded, lengths)


def boosted_ctc(model: Any, encoded: Any, lengths: Any, terms: list[str], alpha: float) -> list[list[tuple[int, int]]]:
    from nemo.collections.asr.parts.submodules.ctc_greedy_decoding import GreedyBatchedCTCInfer

    blank = model.ctc_decoder.num_classes_with_blank - 1
    infer = GreedyBatchedCTCInfer(
        blank, boosting_tree=tree_config(terms), boosting_tree_alpha=alpha, tokenizer=model.tokenizer
    )
    hypotheses = infer._greedy_decode_logprobs_batched(model.ctc_decoder(encoder_output=encoded), lengths)
    out = []
    for hypothesis in hypotheses:
        ids = np.asarray(hypothesis.y_sequence)
        first = np.flatnonzero((ids != blank) & (np.diff(ids, prepend=-1) != 0))
        out.append([(int(ids[frame]), int(frame)) for frame in first])
    return out


def tree_config(terms: list[str]) -> Any:
    from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import BoostingTreeModelConfig

    return BoostingTreeModelConfig(key_phrases_list=terms)


def tree(model: Any, terms: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    import torch
    from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import GPUBoostingTreeModel

    # NeMo numbers states in the order of the terms; in the order of their tokens they are numbered as ours.
    ordered = sorted(terms, key=model.tokenizer.text_to_ids)
    built = GPUBoostingTreeModel.from_config(tree_config(ordered), model.tokenizer)
    scores, following = built.advance(torch.arange(built.num_states))
    return {"scores": scores.numpy(), "next": following.numpy().astype(np.int32)}


def main() -> None:
    import torch

    logging.disable(logging.WARNING)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "data"
    model = load(ROOT / "tests" / "data" / "toy.nemo")
    answers: dict[str, np.ndarray[Any, Any]] = {}
    with torch.inference_mode():
        model.encoder.set_default_att_context_size([70, LOOKAHEAD])
        samples, lengths = batch([utterance(seed)[1] for seed in range(UTTERANCES)])
        encoded, lengths = model.forward(input_signal=samples, input_signal_length=lengths)
        for name, terms in LISTS.items():
            answers[f"terms.{name}"] = np.array(terms)
            answers |= {f"tree.{name}.{part}": array for part, array in tree(model, terms).items()}
            for decoder, decode in (("rnnt", boosted_rnnt), ("ctc", boosted_ctc)):
                plain = decode(model, encoded, lengths, terms, 0.0)
                for alpha in ALPHAS:
                    found = decode(model, encoded, lengths, terms, alpha)
                    flat = np.array([pair for tokens in found for pair in tokens], np.int16).reshape(-1, 2)
                    key = f"{decoder}.{name}.{alpha:g}"
                    answers |= {f"{key}.ids": flat[:, 0], f"{key}.frames": flat[:, 1]}
                    answers[f"{key}.counts"] = np.array([len(tokens) for tokens in found], np.int16)
                    changed = sum(a != b for a, b in zip(plain, found, strict=True))
                    print(f"  {key}: {len(flat)} tokens, {changed} of {UTTERANCES} utterances changed")
    np.savez_compressed(out / "golden_boosting.npz", **answers)


if __name__ == "__main__":
    main()
