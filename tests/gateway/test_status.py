"""/health and /metrics: true, quick whatever the engine does, and the engine comes back without anybody's help."""

from __future__ import annotations

import asyncio
import importlib.metadata
import threading
import time
from collections.abc import Callable, Iterator

import httpx2 as httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nemostream.engine import Engine
from nemostream.figures import Description, Figures
from nemostream.models import catalog
from nemostream.models.bundle import read_info
from nemostream_agent.gateway.engine_metrics import EngineMetrics
from nemostream_agent.gateway.engine_watch import EngineWatch
from nemostream_agent.gateway.status import Health
from tests.clips import TEXTS
from tests.gateway.clients import pcm, ws
from tests.gateway.process import GatewayProcess
from tests.serving import engines_at

SECONDS = 60.0


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(gateway: GatewayProcess) -> tuple[int, Health]:
    """The status, and the answer as the OpenAPI page describes it."""
    answer = httpx.get(f"{gateway.http}/health", timeout=30)
    return answer.status_code, Health.model_validate(answer.json())


def families(gateway: GatewayProcess) -> dict[str, object]:
    text = httpx.get(f"{gateway.http}/metrics", timeout=30).text
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found), "no figure has two meanings"
    return {family.name: family for family in found}


def test_health_says_what_the_engine_is(gateway: GatewayProcess) -> None:
    status, health = ask(gateway)
    (engine,) = engines_at(gateway.place)
    assert (status, health.status, health.detail) == (200, "ok", "")
    assert health.engine is not None and health.engine.process == engine.pid
    assert health.memory is not None and health.memory.total_bytes == psutil.virtual_memory().total
    assert health.memory.used_bytes == pytest.approx(engine.memory_info().rss, rel=0.2)
    assert health.model == read_info(catalog.resolve(None)).name and health.models == [health.model]
    assert health.device == "cpu" and health.processor
    assert health.encoder is not None and health.encoder.precision == "int8"
    assert health.encoder.backend == f"onnxruntime {importlib.metadata.version('onnxruntime')}"
    assert (health.capacity.soft, health.capacity.hard, health.capacity.crowded) == (204, 256, False)


def test_both_pages_are_described(gateway: GatewayProcess) -> None:
    paths = httpx.get(f"{gateway.http}/openapi.json").json()["paths"]
    schema = {"$ref": "#/components/schemas/Health"}
    for status in ("200", "503"):
        assert paths["/health"]["get"]["responses"][status]["content"]["application/json"]["schema"] == schema
    assert "text/plain" in paths["/metrics"]["get"]["responses"]["200"]["content"]


async def test_metrics_are_those_of_a_stream_that_was_heard(gateway: GatewayProcess) -> None:
    before = {name: gateway.metric(name) for name in ("nemostream_streams_total", "nemostream_batch_size_count")}
    assert (await ws(f"{gateway.ws}/ws", pcm("music"))).text == TEXTS["music"]
    found = await asyncio.to_thread(families, gateway)
    assert gateway.metric("nemostream_streams_total") == before["nemostream_streams_total"] + 1
    assert gateway.metric("nemostream_batch_size_count") > before["nemostream_batch_size_count"]
    for name in ("step_seconds", "batch_size", "queue_delay_seconds", "time_to_first_text_seconds"):
        samples = found[f"nemostream_{name}"].samples  # type: ignore[attr-defined]
        buckets = [s for s in samples if s.name.endswith("_bucket")]
        assert found[f"nemostream_{name}"].type == "histogram"  # type: ignore[attr-defined]
        assert [b.value for b in buckets] == sorted(b.value for b in buckets) and buckets[-1].labels["le"] == "+Inf"
        (count,) = [s.value for s in samples if s.name.endswith("_count")]
        assert count == buckets[-1].value > 0
    (info,) = found["nemostream_engine_info"].samples  # type: ignore[attr-defined]
    assert info.labels["device"] == "cpu" and info.labels["precision"] == "int8"
    assert gateway.metric("nemostream_engine_up") == 1
    assert gateway.metric("nemostream_engine_memory_bytes") > 1 << 20


def test_buckets_are_cumulative_and_their_bounds_belong_to_them() -> None:
    figures = Figures()
    for value in (0.001, 0.0011, 0.079, 60.0):
        figures.step_seconds.observe(value)
    stats = dict.fromkeys(("streams", "max_streams", "waiting", "step_share", "predicted_share", "retries"), 0.0)
    about = Description(1, "cpu", "a processor", 1, 2, [], None, stats, figures)
    (family,) = [f for f in EngineMetrics(about).collect() if f.name == "nemostream_step_seconds"]
    counts = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert (counts["0.001"], counts["0.002"], counts["0.064"], counts["0.08"]) == (1, 2, 2, 3)
    assert (counts["5.0"], counts["+Inf"]) == (3, 4)
    (total,) = [s.value for s in family.samples if s.name.endswith("_sum")]
    assert total == pytest.approx(60.0811)


async def test_who_asks_meanwhile_gets_the_same_answer_and_who_asks_later_a_new_one(engine: Engine) -> None:
    watch = EngineWatch(engine)
    answers = await asyncio.gather(*(watch.look() for _ in range(30)))
    assert answers[0] is not None and all(answer is answers[0] for answer in answers), "the engine was asked once"
    assert await watch.look() is not answers[0]


def test_a_gateway_that_waits_for_an_engine_is_starting_and_starts_none() -> None:
    with GatewayProcess(environment={"NEMOSTREAM_SPAWN": "0"}, ready=False) as gateway:
        for _ in range(3):
            status, health = ask(gateway)
            assert (status, health.status, health.engine, health.memory) == (503, "starting", None, None)
            assert gateway.metric("nemostream_engine_up") == 0
        assert gateway.engines() == 0 and not gateway.place.socket.exists()


@pytest.fixture
def own() -> Iterator[GatewayProcess]:
    with GatewayProcess() as running:
        yield running


def test_an_engine_that_hangs_or_dies_is_told_at_once_and_comes_back(own: GatewayProcess) -> None:
    (engine,) = engines_at(own.place)
    gateway = psutil.Process(own.process.pid)
    ask(own)
    before = gateway.num_threads(), gateway.num_fds()
    engine.suspend()
    answers: list[tuple[int, Health]] = []
    askers = [threading.Thread(target=lambda: answers.append(ask(own))) for _ in range(30)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(SECONDS)
    assert [status for status, _ in answers] == [503] * 30
    assert {health.status for _, health in answers} == {"no engine"}
    assert gateway.num_threads() <= before[0] + 1, "one at most waits, however many ask"
    assert own.metric("nemostream_engine_up") == 0 and own.metric("nemostream_hard_limit") == 256
    # Nobody sends a stream to a gateway that is not well, and yet it gets well.
    engine.kill()
    eventually(lambda: ask(own)[0] == 200)
    _, health = ask(own)
    assert health.engine is not None and health.engine.process != engine.pid and health.status == "ok"
    assert own.engines() == 1 and gateway.num_fds() <= before[1] + 2
