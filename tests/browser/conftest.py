"""Real browsers with a fake microphone each, before the real gateway and the real LiveKit server.

They run once for all tests here and end with the last one, so tests and fixtures share one event loop. Each test has a
room of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from nemostream_agent.agent_process import AgentProcess
from nemostream_agent.chromium import Start, browsers
from nemostream_agent.demo.captioned_room import captioned_room
from nemostream_agent.livekit_server import LiveKitServer, find_or_build
from tests.browser.conversation import Conversation
from tests.browser.speech import Sentence
from tests.browser.tab import Tabs
from tests.conftest import ROOT
from tests.gateway.process import GatewayProcess

LOCAL = ("--ice-address", "127.0.0.1", "--chunk-ms", "160")
"""Media goes nowhere else."""


@pytest.fixture(scope="package")
def pages() -> Path:
    """The built pages; made if their source has changed."""
    subprocess.run([sys.executable, "hatch_build.py"], cwd=ROOT, check=True)
    return ROOT / "agent" / "nemostream_agent" / "gateway" / "pages"


@pytest.fixture(scope="package")
def server() -> Iterator[LiveKitServer]:
    """Not the one of other tests: an agent is registered here, which captions all rooms."""
    with LiveKitServer(find_or_build()) as server:
        yield server


@pytest.fixture(scope="package")
def gateway(pages: Path, server: LiveKitServer) -> Iterator[GatewayProcess]:
    """Without keys, with the embedded model and rooms of LiveKit."""
    with GatewayProcess(*LOCAL, environment=server.environment) as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def agent(server: LiveKitServer, gateway: GatewayProcess) -> AsyncIterator[AgentProcess]:
    """Captions in LiveKit's rooms, from the gateway's engine."""
    async with AgentProcess(server, environment={"NEMOSTREAM_SOCKET": str(gateway.place.socket)}) as agent:
        yield agent


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def start() -> AsyncIterator[Start]:
    """Starts browsers. Fails with a sentence where a package is missing."""
    async with browsers() as start:
        yield start


@pytest.fixture(scope="package")
def tonight(tmp_path_factory: pytest.TempPathFactory) -> Sentence:
    """The two sentences that the embedded model understands wherever in a chunk they begin."""
    return Sentence.make("tonight", tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="package")
def refund(tmp_path_factory: pytest.TempPathFactory) -> Sentence:
    return Sentence.make("refund", tmp_path_factory.mktemp("speech"))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def anna(start: Start, tonight: Sentence) -> Browser:
    """Its microphone says "tonight" whenever it is opened."""
    return await start(tonight.sound)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def ben(start: Start, refund: Sentence) -> Browser:
    """Its microphone says "refund"."""
    return await start(refund.sound)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def deaf(start: Start) -> Browser:
    """Without a microphone: it reads."""
    return await start()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def solo(
    gateway: GatewayProcess, anna: Browser, ben: Browser, deaf: Browser, tonight: Sentence, refund: Sentence
) -> AsyncIterator[Conversation]:
    """A conversation over WHIP, when all is said."""
    async with Tabs() as tabs:
        pages = await Conversation.opened(tabs, gateway.http, "solo", deaf, {})
        yield await pages.held({"Anna": (anna, tonight), "Ben": (ben, refund)})


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def livekit(
    gateway: GatewayProcess,
    agent: AgentProcess,
    server: LiveKitServer,
    anna: Browser,
    ben: Browser,
    deaf: Browser,
    tonight: Sentence,
    refund: Sentence,
) -> AsyncIterator[Conversation]:
    """The same in a room of LiveKit."""
    async with Tabs() as tabs, captioned_room(server, "room"):
        pages = await Conversation.opened(tabs, gateway.http, "room", deaf, {"livekit": 1})
        yield await pages.held({"Anna": (anna, tonight), "Ben": (ben, refund)})


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:64]


@pytest_asyncio.fixture(loop_scope="session")
async def tabs() -> AsyncIterator[Tabs]:
    """Opens pages, and closes them behind the test."""
    async with Tabs() as tabs:
        yield tabs
