"""What can be asked on the command line."""

from __future__ import annotations

import argparse
import platform
import textwrap

import packetcore
from packetcore import Config
from packetcore_cli import __version__
from packetcore_cli._arguments import (
    Parser,
    RawHelp,
    add_packet_options,
    add_payload_options,
    address,
    direction,
    host_and_port,
    network,
    number,
    port,
    seconds,
    speed,
    target_port,
)
from packetcore_cli._bench import CONNECTIONS, IN_FLIGHT, SECONDS, SIZE
from packetcore_cli._drivers import DEFAULT
from packetcore_cli._examples import EXAMPLES
from packetcore_cli._failure import EXIT_CODES
from packetcore_cli._framings import DEFAULT as DEFAULT_FRAMING
from packetcore_cli._framings import NAMES, framing_named
from packetcore_cli._log import LOG_FORMS
from packetcore_cli._record import KEEP as RECORD_KEEP
from packetcore_cli._record import SIZE as RECORD_SIZE
from packetcore_cli._serial import BAUDRATE, Replaces
from packetcore_cli._tap import ACTIONS, point
from packetcore_tap import MIN_BYTES

DEFAULTS = Config()

SHELLS = ("bash", "zsh", "fish")
"""Those for which there is completion."""


def exit_codes() -> str:
    """What the exit codes mean, as a paragraph for each."""
    lines = [f"{code:<5}{text}" for code, text in EXIT_CODES.items()]
    texts = [textwrap.fill(line, 78, initial_indent="  ", subsequent_indent=" " * 7) for line in lines]
    return "\n".join(["exit codes:", *texts])


def new_parser() -> Parser:
    """The commands and their options."""
    parser = Parser(
        prog="packetcore",
        description="Serve, send, encode and decode packets.",
        epilog=exit_codes(),
        formatter_class=RawHelp,
    )
    codec = "C" if packetcore.speedups else "Python"
    versions = (
        f"packetcore-cli {__version__}, packetcore {packetcore.__version__} with the codec in {codec}, "
        f"Python {platform.python_version()}"
    )
    parser.add_argument("--version", action="version", version=versions)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str) -> Parser:
        text = textwrap.fill(help[0].upper() + help[1:] + ".", 78)
        return commands.add_parser(
            name, help=help, description=text, epilog=EXAMPLES.get(name), formatter_class=RawHelp
        )

    _add_transport(command("demo", "show packets, a server and its pool at work, in a few seconds"))
    _add_serve_options(command("serve", "serve over TCP or UDP and print, or echo, what comes in"))
    _add_send_options(command("send", "send one packet, or with --framing one frame, and print the replies"))
    encode = command("encode", "print the frame of a packet in hex")
    add_packet_options(encode)
    encode.add_argument("--raw", action="store_true", help="write its bytes as they are")
    _add_decode_options(
        command("decode", "show what each byte of a stream is, and the packets or frames in it or in a capture")
    )
    _add_replay_options(
        command("replay", "show what a recording holds, compare it, shrink it, or play it to a live server")
    )
    dissector = command("dissector", "print a dissector of packets for Wireshark, in Lua")
    text = 'be for this port of TCP and UDP; may be given again; without it, Wireshark\'s "Decode As" says where'
    dissector.add_argument("--port", type=target_port, action="append", metavar="N", help=text)
    _add_max_payload(dissector)

    _add_bench_options(
        command("bench", "load a server that replies, and print how many packets and how long they take")
    )

    _add_tap_options(command("tap", "stand between clients and a server, show what passes, and misbehave as told"))

    command("transports", "list the installed adapters and what each can do")

    completion = command("completion", "print what completes commands and options in a shell")
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    return parser


def _add_serve_options(serve: Parser) -> None:
    text = (
        "serve what you have written: a packetcore.Handler, its class, a function without parameters that gives one, "
        "or a function over a stream; the current directory is looked in first"
    )
    serve.add_argument("--app", metavar="MODULE:NAME", help=text)
    text = (
        "serve by N processes that share the port; one that dies is started again, SIGHUP replaces them one after "
        "another; limits are those of each"
    )
    serve.add_argument("--workers", type=number, metavar="N", help=text)
    serve.add_argument("--as-worker", help=argparse.SUPPRESS)
    _add_transport(serve)
    text = "the address to listen on (default 127.0.0.1), or a name; may be given again; :: is every address"
    serve.add_argument("--host", action="append", metavar="H", help=text)
    serve.add_argument("--port", type=port, metavar="P", help="the port; 0, the default, takes a free one")
    text = "serve on this open descriptor instead, a socket that listens; may be given again"
    serve.add_argument("--fd", type=number, action="append", metavar="N", help=text)
    serve.add_argument("--udp", action="store_true", help="serve UDP: a session for each address that sends a packet")
    text = "serve one serial line instead, such as /dev/ttyUSB0, until it ends; it may be silent for ever"
    serve.add_argument("--serial", metavar="DEV", help=text)
    _add_baudrate(serve)
    _add_framing(serve)
    serve.add_argument("--echo", action="store_true", help="send every packet or frame back, print none")
    serve.add_argument("--tls-cert", metavar="FILE", help="serve TLS with the certificate in this PEM file")
    serve.add_argument("--tls-key", metavar="FILE", help="its private key, where that is in a file of its own")
    text = "with --tls-cert: what to show to those who ask for HOST, as *.example too; may be given again"
    serve.add_argument("--tls-sni", nargs=3, action="append", metavar=("HOST", "CERT", "KEY"), help=text)
    text = "demand a certificate of clients, and trust those of the authorities in this PEM file"
    serve.add_argument("--tls-client-ca", metavar="FILE", help=text)
    text = "with --tls-client-ca: refuse the certificates that the lists (CRL) in this PEM file revoke"
    serve.add_argument("--tls-crl", metavar="FILE", help=text)
    text = (
        "take connections from a proxy of this network alone, such as 10.0.0.0/8, which says by the PROXY protocol "
        "whose they are; may be given more than once"
    )
    serve.add_argument("--proxy-protocol", action="append", type=network, metavar="NETWORK", help=text)
    for name, default, what in (
        ("idle_timeout", DEFAULTS.idle_timeout, "how long a peer may be silent"),
        ("frame_timeout", DEFAULTS.frame_timeout, "how long one packet may take to come"),
    ):
        with_serial = ", with --serial 0" if name == "idle_timeout" else ""
        text = f"{what}, in seconds; 0 for ever (default {default:g}{with_serial})"
        given = None if with_serial else default
        serve.add_argument(f"--{name.replace('_', '-')}", type=seconds(name), default=given, metavar="S", help=text)
    most, per_host = DEFAULTS.max_sessions, DEFAULTS.max_sessions_per_host
    text = f"how many sessions at a time (default {most})"
    serve.add_argument("--max-sessions", type=number, default=most, metavar="N", help=text)
    text = f"how many of them from one host (default {per_host})"
    serve.add_argument("--max-sessions-per-host", type=number, default=per_host, metavar="N", help=text)
    _add_max_payload(serve)
    text = "how long sessions may take to finish after SIGINT or SIGTERM, in seconds (default 5)"
    serve.add_argument("--grace", type=seconds("grace"), default=5.0, metavar="S", help=text)
    text = "log one record a line for machines: logfmt, the default with --log, or json"
    serve.add_argument(
        "--log", "--log-format", nargs="?", choices=LOG_FORMS, const=LOG_FORMS[0], metavar="FORM", help=text
    )
    text = "plain lines in a terminal too, where else a table of the sessions stays below them"
    serve.add_argument("--plain", action="store_true", help=text)
    text = "serve a page on this port of this machine, or of HOST, that shows sessions, sends to them and closes them"
    serve.add_argument("--console", type=address, metavar="[HOST:]PORT", help=text)
    text = "log also who connects and goes without sending a byte, as load balancers do"
    serve.add_argument("--verbose", action="store_true", help=text)
    text = "serve metrics for Prometheus on this port; 0 takes a free one"
    serve.add_argument("--metrics-port", type=port, metavar="P", help=text)
    serve.add_argument("--metrics-host", metavar="H", help="the address to serve them on (default 127.0.0.1)")

    _add_record(serve)


def _add_send_options(send: Parser) -> None:
    host = send.add_argument("server", metavar="HOST", help="where the server is")
    its_port = send.add_argument("port", type=target_port, metavar="PORT", help="its port")
    text = "send on this serial line, such as /dev/ttyUSB0, in place of HOST and PORT"
    send.add_argument("--serial", action=Replaces, replaced=(host, its_port), metavar="DEV", help=text)
    _add_baudrate(send)
    add_packet_options(send, or_frame=True)
    _add_framing(send)
    _add_transport(send)
    send.add_argument("--udp", action="store_true", help="send over UDP, in one datagram")
    send.add_argument("--broadcast", action="store_true", help="with --udp: HOST may be a broadcast address")
    send.add_argument("--tls", action="store_true", help="speak TLS")
    send.add_argument("--tls-ca", metavar="FILE", help="speak TLS and trust the certificates in this PEM file")
    send.add_argument("--replies", type=number, default=1, metavar="N", help="how many to wait for (default 1)")
    text = "how long to wait for each, in seconds; 0 for ever (default 2)"
    send.add_argument("--timeout", type=seconds("timeout"), default=2.0, metavar="S", help=text)
    _add_max_payload(send)


def _add_decode_options(decode: Parser) -> None:
    text = "hex, or a file that holds bytes, hex or a capture (pcap, pcapng); - or nothing reads standard input"
    decode.add_argument("source", nargs="*", metavar="HEX|FILE|-", help=text)
    _add_framing(decode)
    _add_max_payload(decode)
    text = "print each packet, frame or malformed run as a line of JSON"
    decode.add_argument("--json", action="store_true", help=text)
    text = "go on with what is added to FILE, or comes by standard input, until Ctrl-C or its end; without the dump"
    decode.add_argument("--follow", action="store_true", help=text)
    decode.add_argument("--check", action="store_true", help="exit with 1 where something is malformed")
    text = "of a capture only this conversation, by its number in the list; may be given again"
    decode.add_argument("--only", type=number, action="append", metavar="N", help=text)


def _add_replay_options(replay: Parser) -> None:
    text = "a capture of serve --record, tcpdump or Wireshark, pcapng or pcap; - is standard input"
    replay.add_argument("file", metavar="FILE", help=text)
    _add_framing(replay)
    _add_max_payload(replay)
    text = "only this conversation, by its number in the list; may be given again"
    replay.add_argument("--only", type=number, action="append", metavar="N", help=text)
    mode = replay.add_mutually_exclusive_group()
    mode.add_argument("--dump", action="store_true", help="show what each byte is, too")
    mode.add_argument("--json", action="store_true", help="print each event as a line of JSON, for --compare")
    text = "exit with 1 where the events differ from those of another capture, or from what --json has printed"
    mode.add_argument("--compare", metavar="OTHER", help=text)
    text = "write the shortest recording that still fails: with --fails, or has something malformed for the same reason"
    mode.add_argument("--shrink", metavar="OUT", help=text)
    text = "send what each client said to this server, and compare the replies"
    mode.add_argument("--to", type=host_and_port, metavar="HOST:PORT", help=text)
    text = "with --shrink: a command that exits with another code than 0 for a recording that fails; {} stands for it"
    replay.add_argument("--fails", metavar="COMMAND", help=text)
    text = "with --to: how many times as fast as recorded, or max (default 1)"
    replay.add_argument("--speed", type=speed, metavar="X", help=text)
    text = "with --to: how long to wait for a reply, in seconds (default 2)"
    replay.add_argument("--timeout", type=seconds("timeout"), metavar="S", help=text)
    replay.add_argument("--tls", action="store_true", help="with --to: speak TLS")
    replay.add_argument("--tls-ca", metavar="FILE", help="with --to: trust the certificates in this PEM file")


def _add_bench_options(bench: Parser) -> None:
    bench.add_argument("server", metavar="HOST", help="where the server is")
    bench.add_argument("port", type=target_port, metavar="PORT", help="its port")
    text = f"how many at a time (default {CONNECTIONS})"
    bench.add_argument("--connections", type=number, default=CONNECTIONS, metavar="N", help=text)
    text = f"packets on each connection that wait for a reply, before another is sent (default {IN_FLIGHT})"
    bench.add_argument("--in-flight", type=number, metavar="N", help=text)
    text = (
        "send so many packets a second on all connections together, each at its time whatever comes back; latencies "
        "are then from when a packet was due"
    )
    bench.add_argument("--rate", type=float, metavar="N", help=text)
    text = f"how long, in seconds (default {SECONDS:g}, and with --packets until all are sent)"
    bench.add_argument("--seconds", type=float, metavar="S", help=text)
    bench.add_argument("--packets", type=number, metavar="N", help="end after so many packets")
    bench.add_argument("--id", type=number, metavar="N", help="of the packets, 0 to 65535; 0x.. is hex (default 1)")
    bench.add_argument("--type", type=number, metavar="N", help="of the packets, 0 to 255 (default 0)")
    bench.add_argument("--size", type=number, metavar="N", help=f"bytes of payload, made up (default {SIZE})")
    add_payload_options(bench)
    _add_framing(bench)
    bench.add_argument("--udp", action="store_true", help="load over UDP, each datagram by itself")
    bench.add_argument("--tls", action="store_true", help="speak TLS")
    bench.add_argument("--tls-ca", metavar="FILE", help="speak TLS and trust the certificates in this PEM file")
    text = "give the server up when no reply comes for so long, and over UDP a packet, in seconds (default 2)"
    bench.add_argument("--timeout", type=seconds("timeout"), default=2.0, metavar="S", help=text)
    bench.add_argument("--json", action="store_true", help="print one line of JSON")
    _add_max_payload(bench)


def _add_tap_options(tap: Parser) -> None:
    text = "where clients connect to: PORT, HOST:PORT or [HOST]:PORT; port 0 takes a free one"
    tap.add_argument("listen", type=address, metavar="LISTEN", help=text)
    tap.add_argument("target", type=address, metavar="TARGET", help="where the server is, in the same way")
    tap.add_argument("--udp", action="store_true", help="pass UDP on, for each client by a port of its own")
    _add_framing(tap)
    _add_max_payload(tap)
    for name, kind, metavar, text in (
        ("latency", float, "S", "seconds that everything is under way"),
        ("jitter", float, "S", "seconds more, from 0 up to this; datagrams overtake each other"),
        ("bandwidth", float, "N", "bytes a second"),
        ("buffer", number, "N", "bytes under way before senders have to wait, or datagrams are lost (default 262144)"),
        ("cut", number, "N", "deliver streams in pieces of 1 to N bytes"),
        ("gap", float, "S", "with --cut: seconds between two pieces"),
        (
            "merge",
            float,
            "S",
            "hold what a stream brings so many seconds, and deliver it in one piece with what follows",
        ),
        ("corrupt", float, "P", "the chance of each byte to be changed, 0 to 1"),
        ("loss", float, "P", "with --udp: the chance of each datagram to be lost"),
        ("duplication", float, "P", "with --udp: the chance of each datagram to come twice"),
    ):
        tap.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    for action, what in zip(ACTIONS, _WHAT_HAPPENS, strict=True):
        text = f"{what} after so many seconds of each connection, as 5s, or bytes one way, as 4096B; may be given again"
        option = f"--{action.replace('_', '-')}-after"
        tap.add_argument(option, type=point, action="append", metavar="WHEN", help=text)
    text = "what is misbehaved to: to-server, to-client, or both, the default"
    tap.add_argument("--direction", type=direction, default="both", metavar="D", help=text)
    text = "the same N does the same to the same connections (default 0)"
    tap.add_argument("--seed", type=number, default=0, metavar="N", help=text)
    much = tap.add_mutually_exclusive_group()
    much.add_argument("--dump", action="store_true", help="show what each byte of each packet is, as decode does")
    much.add_argument("--quiet", action="store_true", help="show no packets: connections and what is malformed alone")
    _add_record(tap)
    tap.add_argument("--interactive", action="store_true", help="take commands from standard input; help lists them")


_WHAT_HAPPENS = (
    "reset it on both sides",
    "end it in good order on both sides, whatever was to come,",
    "let nothing through any more, though it is taken,",
    "lose everything without a word",
)


def _add_transport(parser: Parser) -> None:
    parser.add_argument("--transport", default=DEFAULT, metavar="T", help=f"the adapter (default {DEFAULT})")


def _add_baudrate(parser: Parser) -> None:
    text = f"with --serial: bits a second (default {BAUDRATE})"
    parser.add_argument("--baudrate", type=number, metavar="N", help=text)


def _add_framing(parser: Parser) -> None:
    text = f"where frames begin and end: {NAMES} (default {DEFAULT_FRAMING}, whose frames hold packets)"
    parser.add_argument("--framing", type=framing_named, metavar="NAME", help=text)


def _add_record(parser: Parser) -> None:
    parser.add_argument("--record", metavar="FILE", help="record what is said, as pcapng, which Wireshark opens")
    text = f"with --record: bytes after which another file begins, at least {MIN_BYTES} (default {RECORD_SIZE})"
    parser.add_argument("--record-size", type=number, metavar="BYTES", help=text)
    text = f"with --record: how many files are kept, FILE with it (default {RECORD_KEEP})"
    parser.add_argument("--record-keep", type=number, metavar="N", help=text)


def _add_max_payload(parser: Parser) -> None:
    text = f"the longest payload, or frame of another framing, in bytes (default {DEFAULTS.max_payload})"
    parser.add_argument("--max-payload", type=number, default=DEFAULTS.max_payload, metavar="N", help=text)
