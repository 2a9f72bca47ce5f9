"""The command `nemostream`: transcribe a file, download a model, convert a checkpoint, list models."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, cast, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nemostream.errors import NemostreamError
from nemostream.protocol import SAMPLE_RATE

if TYPE_CHECKING:
    from nemostream.engine_config import Device

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
_stderr = Console(stderr=True)


def _bar(label: str) -> Progress:
    columns = TextColumn(label), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=_stderr, transient=True, disable=not _stderr.is_terminal)


@app.command()
def transcribe(
    file: Annotated[str, typer.Argument(help="a sound or video file, - for standard input")],
    model: Annotated[str | None, typer.Option(help="a name, a bundle or sherpa-onnx folder, or a .nemo file")] = None,
    chunk_ms: Annotated[int | None, typer.Option(help="chunk size, one of those the model offers")] = None,
    decoder: Annotated[str | None, typer.Option(help="rnnt or ctc, where the model has both")] = None,
    precision: Annotated[str | None, typer.Option(help="int8 or fp32; on a GPU bf16, fp16 or fp32")] = None,
    language: Annotated[str | None, typer.Option(help="for models that take one; default: they find it out")] = None,
    keyterm: Annotated[list[str] | None, typer.Option(help="a name or phrase to favour; may be repeated")] = None,
    skip_silence: Annotated[bool, typer.Option("--skip-silence", help="do not run the model on long silence")] = False,
    device: Annotated[str, typer.Option(envvar="NEMOSTREAM_DEVICE", help="cpu, or cuda for a GPU")] = "cpu",
    realtime: Annotated[bool, typer.Option("--realtime", help="feed the file at the speed of speech")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object a line, interim results included")] = False,
    srt: Annotated[bool, typer.Option("--srt", help="SubRip cues")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="WebVTT cues")] = False,
) -> None:
    """Transcribe FILE; the text goes to standard output, progress to standard error."""
    from nemostream import transcribe as work

    if json + srt + vtt > 1:
        raise typer.BadParameter("choose one of --json, --srt, --vtt")
    source: Path | BinaryIO = sys.stdin.buffer if file == "-" else Path(file)
    write = work.writer("json" if json else "srt" if srt else "vtt" if vtt else "text", sys.stdout)
    with _bar("transcribing") as bar:
        task = bar.add_task("", total=1.0)
        began = time.monotonic()
        asked: dict[str, Any] = {"language": language, "keyterms": keyterm or (), "skip_silence": skip_silence}
        core = work.open_file_stream(model, chunk_ms, decoder, precision, device=_device(device), **asked)
        for events, samples, part in work.run(core, source):
            for event in events:
                write(event)
            bar.update(task, completed=part)
            if realtime:
                time.sleep(max(0.0, began + samples / SAMPLE_RATE - time.monotonic()))


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="a NeMo checkpoint, .nemo")],
    out: Annotated[Path, typer.Argument(help="the bundle folder to make")],
    name: Annotated[str | None, typer.Option(help="the model's name; default: the file's")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32, int8; may be given twice; default: both")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="what it writes; may be repeated; default: its prompts, or en")
    ] = None,
    decoder: Annotated[str | None, typer.Option(help="the default decoder, rnnt or ctc")] = None,
    flush_silence_ms: Annotated[int, typer.Option(help="silence that a flush runs behind the pending audio")] = 320,
    emission_delay_ms: Annotated[int, typer.Option(help="how long after a sound its token comes out")] = 0,
) -> None:
    """Make a bundle that the engine loads from a NeMo checkpoint."""
    from nemostream.models.convert import Settings
    from nemostream.models.convert import convert as run

    chosen = cast(Literal["rnnt", "ctc"] | None, decoder)
    settings = Settings(tuple(language or ()), chosen, flush_silence_ms, emission_delay_ms)
    with _stderr.status("converting") as status:
        bundle = run(
            checkpoint, out, name=name, precisions=_precisions(precision), settings=settings, progress=status.update
        )
    frame_ms = bundle.info.frame_samples * 1000 // SAMPLE_RATE
    chunks = ", ".join(str(t * frame_ms) for t in bundle.info.chunk_frames)
    typer.echo(f"{out}: {bundle.info.name}, {', '.join(bundle.info.precisions)}, chunks of {chunks} ms")


def _precisions(given: list[str] | None) -> tuple[Literal["fp32", "int8"], ...]:
    for one in given or []:
        if one not in ("fp32", "int8"):
            raise typer.BadParameter(f"{one} is no precision; there are fp32 and int8")
    return tuple(cast(list[Literal["fp32", "int8"]], given or ["fp32", "int8"]))


def _device(given: str) -> Device:
    """One that is here."""
    from nemostream import engine_config
    from nemostream.model import require_device

    where = cast("Device", _one_of("device", given, engine_config.Device))
    if where != "cpu":
        require_device(where)  # now, and not when the first stream comes
    return where


def _one_of(option: str, given: str, kind: Any) -> str:
    """`given`, one of a Literal."""
    if given not in get_args(kind):
        raise typer.BadParameter(f"{given} is no {option}; there are {', '.join(get_args(kind))}")
    return given


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="a repository of the Hugging Face hub, owner/name")],
    revision: Annotated[str | None, typer.Option(help="a branch, tag or commit; default: as before, or newest")] = None,
) -> None:
    """Fetch a model from the hub and convert it, once; streams find it by its name from then on."""
    from nemostream.models import catalog

    with _stderr.status("looking it up") as status:

        def say(line: str) -> None:
            if not _stderr.is_terminal or line.startswith("fetching"):
                # No spinner: where nobody watches, and under the bar of the hub's library, which follows.
                status.stop()
                typer.echo(line, err=True)
            else:
                status.update(line)
                status.start()

        folder = catalog.download(name, revision, say)
    typer.echo(f"{name}: {folder}")


@app.command()
def serve(
    socket: Annotated[Path | None, typer.Option(help="where; default: NEMOSTREAM_SOCKET, else one per user")] = None,
    model: Annotated[str | None, typer.Option(help="what streams get that name none")] = None,
    precision: Annotated[str | None, typer.Option(help="int8 or fp32; on a GPU bf16, fp16 or fp32")] = None,
    threads: Annotated[int | None, typer.Option(help="of the encoder; default: one per core")] = None,
    max_streams: Annotated[int, typer.Option(help="streams at once")] = 256,
    max_batch: Annotated[
        int | None, typer.Option(envvar="NEMOSTREAM_MAX_BATCH", min=1, help="of one step; default: as time allows")
    ] = None,
    idle_exit: Annotated[float | None, typer.Option(help="seconds without a client after which it ends")] = None,
    memory_mb: Annotated[int | None, typer.Option(help="what loaded models may take together")] = None,
    device: Annotated[str, typer.Option(envvar="NEMOSTREAM_DEVICE", help="cpu, or cuda for a GPU")] = "cpu",
    encoder: Annotated[
        str,
        typer.Option(envvar="NEMOSTREAM_ENCODER", help="onnx, torch, tensorrt, or null to measure all but the model"),
    ] = "onnx",
    spawned: Annotated[bool, typer.Option("--spawned", hidden=True, help="started by a client")] = False,
) -> None:
    """Run one engine for all processes of this machine."""
    import asyncio
    import logging
    import signal

    from nemostream import process
    from nemostream.engine import Engine
    from nemostream.engine_config import Encoder, EngineConfig, Precision
    from nemostream.errors import EngineTaken
    from nemostream.rendezvous import Place
    from nemostream.server import SPAWNED_IDLE_EXIT, Server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    process.prepare()
    chosen = cast(Precision, _one_of("precision", precision, Precision)) if precision else None
    kind = cast(Encoder, _one_of("encoder", encoder, Encoder))
    where = _device(device)
    engine = Engine(
        EngineConfig(
            model, chosen, threads, max_streams, max_batch, model_memory_mb=memory_mb, encoder=kind, device=where
        ),
    )
    place = Place(socket.absolute()) if socket else Place.default()
    if spawned and idle_exit is None:
        idle_exit = SPAWNED_IDLE_EXIT

    async def run() -> None:
        server = Server(engine, place, spawned=spawned, idle_exit=idle_exit)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        await server.run()

    try:
        asyncio.run(run())
    except EngineTaken:
        if not spawned:
            raise
        # Two clients started one each: the other is as good.
    # A model may still be loading on a thread, which the interpreter's end would crash.
    os._exit(0)


@app.command()
def calibrate(
    model: Annotated[str | None, typer.Argument(help="a name, a bundle or sherpa-onnx folder, or a .nemo file")] = None,
    precision: Annotated[str | None, typer.Option(help="int8 or fp32; on a GPU bf16, fp16 or fp32")] = None,
    threads: Annotated[int | None, typer.Option(help="of the encoder; default: one per core")] = None,
    device: Annotated[str, typer.Option(envvar="NEMOSTREAM_DEVICE", help="cpu, or cuda for a GPU")] = "cpu",
    encoder: Annotated[str, typer.Option(envvar="NEMOSTREAM_ENCODER", help="onnx, torch or tensorrt")] = "onnx",
    max_streams: Annotated[int, typer.Option(min=1, help="on a GPU: as serve is to have")] = 256,
) -> None:
    """Measure what MODEL costs on this machine; engines that load it then know how many streams there is time for."""
    from nemostream.calibration import calibrate as run
    from nemostream.engine_config import Encoder, Precision

    chosen = _one_of("precision", precision, Precision) if precision else None
    kind = _one_of("encoder", encoder, Encoder)
    with _stderr.status("measuring") as status:
        rows = run(model, chosen, threads, _device(device), kind, max_streams, status.update)
    typer.echo("chunk\tms a step\tms a stream\tstreams")
    for row in rows:
        typer.echo(f"{row.chunk_ms} ms\t{row.fixed_ms:.2f}\t{row.per_row_ms:.2f}\t{row.streams}")


@app.command()
def plan(
    model: Annotated[str | None, typer.Argument(help="a name, a bundle folder, or a .nemo file")] = None,
    precision: Annotated[str, typer.Option(help="bf16, fp16 or fp32")] = "bf16",
    max_streams: Annotated[int, typer.Option(min=1, help="rows of a step at most, as serve is to have")] = 256,
    target: Annotated[str | None, typer.Option(help="a GPU that is elsewhere, as sm89; default: the one here")] = None,
) -> None:
    """Build TensorRT's plans of MODEL, one for each chunk size. An engine does that itself when it loads a model."""
    from nemostream.model import require_device
    from nemostream.models import catalog
    from nemostream.models.bundle import load_bundle

    require_device("cpu")  # torch makes the graph that TensorRT is given
    from nemostream.encoders.tensorrt import make_plans, plan_folder

    chosen = _one_of("precision", precision, Literal["bf16", "fp16", "fp32"])
    bundle = load_bundle(catalog.resolve(model))
    with _stderr.status("looking") as status:
        for path in make_plans(bundle, chosen, max_streams, plan_folder(), status.update, target):
            typer.echo(path)


@app.command()
def models() -> None:
    """The models that can be named: those here, and those that NVIDIA has on the hub. Columns are parted by tabs."""
    from nemostream.models import catalog
    from nemostream.models.bundle import read_info
    from nemostream.models.known import KNOWN

    here = {**dict.fromkeys(catalog.names(), "shipped"), **dict.fromkeys(catalog.downloaded(), "downloaded")}
    for name in (*here, *(name for name in KNOWN if name not in here)):
        known = KNOWN.get(name)
        columns = [name, here.get(name, "not here"), ",".join(known.languages) if known else "-", "-", "-", "-"]
        if name in here:
            info = read_info(catalog.resolve(name))
            frame_ms = info.frame_samples * 1000 // SAMPLE_RATE
            chunks = "/".join(str(t * frame_ms) for t in info.chunk_frames)
            columns[2:] = ",".join(info.languages), f"{chunks} ms", "/".join(info.decoders), "/".join(info.precisions)
        typer.echo("\t".join((*columns, known.about if known else "-", known.licence if known else "-")))


def main() -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1."""
    try:
        app(standalone_mode=True)
    except NemostreamError as error:
        typer.echo(f"nemostream: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
