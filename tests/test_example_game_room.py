"""`examples/game_room`: its rules, its lobby without a network, and two people in browsers with a bot by UDP."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from examples.game_room import protocol
from examples.game_room.__main__ import BY_UDP, BY_WEBSOCKET
from examples.game_room.lobby import BEHIND, NAMES_EVERY, Lobby
from examples.game_room.protocol import LEAVE, NAMES, NO_TICKET, STATE, TICKET, WELCOME, Dot
from examples.game_room.room import HEIGHT, MARGIN, MAX_PLAYERS, WIDTH, Full, Room
from packetcore import CloseReason, Packet, decode, encode
from packetcore.testing import FakeDatagramEndpoint, FakeDatagramSession, FakeEndpoint, FakeSession
from tests.browsers import running_browser
from tests.example_program import Program, refused, running, until

Session = FakeSession | FakeDatagramSession


@pytest.fixture
def room() -> Room:
    return Room(random.Random(1))


@pytest.fixture
def lobby(room: Room) -> Lobby:
    return Lobby(room)


def test_dots_run_and_stay_in_the_arena(room: Room) -> None:
    player = room.enter("ada")
    room.star = (0, 0)
    player.x, player.y, player.dx, player.dy = 100.0, 100.0, 1, 0
    room.advance(0.5)
    assert (player.x, player.y) == (200.0, 100.0)
    player.dy = 1
    room.advance(0.1)
    assert (round(player.x, 1), round(player.y, 1)) == (214.1, 114.1)  # aslant no faster
    room.advance(60.0)
    assert (player.x, player.y) == (WIDTH - MARGIN, HEIGHT - MARGIN)


def test_who_reaches_the_star_has_a_point_and_it_is_elsewhere(room: Room) -> None:
    player = room.enter("ada")
    player.x, player.y = map(float, room.star)
    before = room.star
    room.advance(0.05)
    assert (player.score, room.star == before) == (1, False)


def test_so_many_players_and_no_more(room: Room) -> None:
    players = [room.enter("ada") for _ in range(MAX_PLAYERS)]
    with pytest.raises(Full):
        room.enter("bob")
    room.leave(players[0])
    assert room.enter("bob").number not in {player.number for player in players}


def test_the_largest_packets_travel_in_one_piece() -> None:
    worst = 0xFEFE
    state = protocol.state(0xFEFE_FEFE, (worst, worst), [Dot(worst, worst, worst, worst)] * MAX_PLAYERS)
    names = [*protocol.names([(worst, "\U0001f600" * protocol.MAX_NAME)] * MAX_PLAYERS)]
    assert len(names) == 6
    assert max(map(len, map(encode, [state, *names]))) <= 1200


def enter(session: Session, name: str) -> int:
    """Come in; gives the number."""
    session.feed(protocol.join(NO_TICKET, name))
    (ticket,) = (packet.payload for packet in session.sent if packet.id == TICKET)
    session.feed(protocol.join(ticket, name))
    (number,) = (protocol.read_welcome(packet.payload) for packet in session.sent if packet.id == WELCOME)
    return number


def test_players_by_udp_and_by_websocket_are_in_one_room(lobby: Lobby) -> None:
    native = FakeDatagramSession(FakeDatagramEndpoint(lobby, BY_UDP))
    browser = FakeSession(lobby, BY_WEBSOCKET)
    numbers = [enter(native, "bot"), enter(browser, " Ada\n<b>, the very first ")]
    browser.feed(protocol.input_(1, 0), Packet(protocol.INPUT, b"\x80\x80\x80"), Packet(99))
    before = lobby.room.players[numbers[1]].x
    lobby.advance()
    for session in (native, browser):
        state = protocol.read_state(next(packet.payload for packet in session.sent if packet.id == STATE))
        assert [dot.number for dot in state.dots] == numbers
        assert state.dots[1].x == round(min(WIDTH - MARGIN, before + 10))
    assert lobby.room.players[numbers[1]].name == "Ada<b>, the"
    for _ in range(NAMES_EVERY):
        lobby.advance()
    assert native.sent[-2] == Packet(NAMES, b"\x00\x01\x03bot\x00\x02\x0bAda<b>, the")


def test_a_forged_address_is_sent_no_more_than_was_sent_for_it(lobby: Lobby) -> None:
    server = FakeDatagramEndpoint(lobby, BY_UDP)
    forged = FakeDatagramSession(server)
    sent = [protocol.join(NO_TICKET, ""), protocol.join(b"12345678", "ada"), Packet(protocol.JOIN, b"1234567")]
    for packet in [*sent, protocol.input_(1, 1)]:
        forged.feed(packet)
        lobby.advance()
    assert {packet.id for packet in forged.sent} == {TICKET}
    assert len(forged.sent) == 2
    assert lobby.room.players == {}


def test_who_leaves_or_falls_silent_is_gone(lobby: Lobby) -> None:
    server = FakeDatagramEndpoint(lobby, BY_UDP)
    polite, silent = (FakeDatagramSession(server) for _ in range(2))
    enter(polite, "ada")
    enter(silent, "bob")
    polite.feed(Packet(LEAVE))
    assert [player.name for player in lobby.room.players.values()] == ["bob"]
    server.advance(3.0)
    assert silent.close_reason is CloseReason.IDLE_TIMEOUT
    assert lobby.room.players == {}


def test_a_slow_client_is_left_out_and_holds_up_nobody(lobby: Lobby) -> None:
    server = FakeEndpoint(lobby, BY_WEBSOCKET)
    slow, quick = (FakeSession(server) for _ in range(2))
    enter(slow, "slow")
    enter(quick, "quick")
    slow.room = 0
    for _ in range(2_000):
        lobby.advance()
        server.advance(0)
    assert slow.session.outstanding < BEHIND + 200
    ticks = [protocol.read_state(packet.payload).tick for packet in quick.sent if packet.id == STATE]
    assert ticks == list(range(1, 2_001))
    slow.room = None
    lobby.advance()
    newest = [packet for packet in slow.sent if packet.id == STATE][-1]
    assert protocol.read_state(newest.payload).tick == 2_001
    assert lobby.left_out > 1_900


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with running("game_room", "--page-port", 0, "--port", 0, "--bots", 1) as program:
        program.says("Ctrl-C ends all")
        yield program
        program.stop()


def url_of(program: Program) -> str:
    return program.says(r"http://127\.0\.0\.1:\d+/\?port=\d+")[0]


@pytest.mark.timeout(120)
def test_two_people_play_in_their_browsers(program: Program) -> None:
    with running_browser() as browser:
        ada, bob = browser.new_page(), browser.new_page()
        for page, name in ((ada, "Ada"), (bob, "Bob<i>")):
            page.goto(url_of(program))
            page.get_by_label("your name").fill(name)
            page.get_by_role("button", name="Come in").click()
            expect(page.locator("#state")).to_contain_text("in, as number")
        for page in (ada, bob):
            for name in ("Ada: ", "Bob<i>: ", "bot 1: "):
                expect(page.locator("#scores")).to_contain_text(name)
        number = ada.evaluate("me")
        dot = f"arena.dots.find((dot) => dot.number === {number})"
        begun = bob.evaluate(f"{dot}.x")
        ada.keyboard.down("ArrowRight" if begun < WIDTH / 2 else "KeyA")
        bob.wait_for_function(f"Math.abs({dot}.x - {begun}) > 50")
        ada.evaluate("room.close()")
        bob.wait_for_function(f"{dot} === undefined")
        expect(ada.locator("#state")).to_contain_text("in, as number")  # again


def test_a_bot_of_its_own_process_says_goodbye(program: Program) -> None:
    host, port = program.says(r"UDP (\S+) port (\d+)").groups()
    with (
        running("game_room.bot", host, port, "--name", "stranger") as bot,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as watcher,
    ):
        watcher.settimeout(30)
        watcher.connect((host, int(port)))

        def dots() -> int:
            """How many are in the room, the watcher among them."""
            while True:
                packet = decode(watcher.recv(2000))
                watcher.send(encode(protocol.input_(0, 0)))
                if packet.id == STATE:
                    return len(protocol.read_state(packet.payload).dots)

        watcher.send(encode(protocol.join(NO_TICKET, "watcher")))
        ticket = decode(watcher.recv(2000)).payload
        watcher.send(encode(protocol.join(ticket, "watcher")))
        until(lambda: dots() == 3, "two bots and the watcher are in")
        bot.stop(signal.SIGTERM)
        until(lambda: dots() == 2, "one bot has left")
        watcher.send(encode(Packet(LEAVE)))


def test_what_it_cannot_start_with_is_one_line(program: Program) -> None:
    port = url_of(program).rpartition("=")[2]
    status, said = refused("game_room", "--page-port", 0, "--port", port)
    assert (status, said.startswith("game room: [Errno"), "in use" in said) == (1, True, True)
