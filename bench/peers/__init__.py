"""How many streams a core carries, beside sherpa-onnx and NeMo: the same audio, the same weights, one thread.

python -m bench.peers --rounds 5 --json bench/peers.json [--model embedded 114m] [--chunk 80 160 560 1120]

Every contender is a process of its own, in an environment of its own, with all its threads on one core. For each chunk
size all of them load; each tries the batch sizes 1 to 32; then come the rounds, in one direction and back again, in
which each runs at the batch size that suited it best, and alone.

Measured: streams per core, which is batch * chunk / CPU time of a step. A step begins with mel frames and ends with
tokens, gathering the state of its streams and writing it back included; making mel frames is measured beside it. CPU
time is what passes on a core that nobody else uses, and does not count others where somebody does; the share of the
core that a process had is in the figures. The step of one stream is in time that passed. RSS is the peak, with 1 and
with 32 streams. WER is of held-out sentences, each between silences. Words as ours fp32 are
1 - the word error rate against its text; letters are those of all texts: each decoder should have as much to do.

What each is given:
- ours: the bundle of the .nemo, through Group.run. The rows are not the first ones of the arrays, so that each step
  gathers; the engine does so only when fewer than half of its rows are ready.
- sherpa-onnx, from PyPI: an export for each chunk size, made as its own scripts make them: NeMo's exporter with cache
  support; int8 by onnxruntime's quantize_dynamic, QUInt8, in encoder, decoder and joiner; onnxruntime with all graph
  optimisations, which is its default. Where an x86 has no VNNI that int8 can be slower than fp32, so there is a third
  precision which its scripts do not make: matrix products alone, signed, 7 bits. decode_streams gets a batch of ready
  streams.
- NeMo 3.0.0: its cache-aware pipeline, in fp32, which is all it offers on a CPU. sides/nemo.py says what is set. At 80
  ms it computes its buffer as int(0.17 / 0.01) = 16 mel frames of 17 and loses the newest frame of each chunk; that
  number is set right here, else its text would be wrong.

The same weights do not give quite the same text. This project's encoder equals NeMo's offline, the exported graph
equals NeMo's streaming, and those two differ: streaming drops what the encoder says to a stream's first two frames.
NeMo's pipeline also computes the first and the last mel frame of each chunk from too few samples, and sherpa-onnx's
frames are not quite NeMo's. Silence in front is trimmed for each side so that chunks begin at the same sound. The
text of random weights follows the smallest differences and agrees with nobody's.
"""
