"""What can be asked on the command line."""

from __future__ import annotations

import platform

import packetcore
from packetcore import Config
from packetcore_cli import __version__
from packetcore_cli._arguments import Parser, add_packet_options, number, port, seconds
from packetcore_cli._drivers import DEFAULT
from packetcore_cli._framings import DEFAULT as DEFAULT_FRAMING
from packetcore_cli._framings import NAMES, framing_named
from packetcore_cli._log import LOG_FORMS

DEFAULTS = Config()


def new_parser() -> Parser:
    """The commands and their options."""
    parser = Parser(prog="packetcore", description="Serve, send, encode and decode packets.")
    codec = "C" if packetcore.speedups else "Python"
    versions = (
        f"packetcore-cli {__version__}, packetcore {packetcore.__version__} with the codec in {codec}, "
        f"Python {platform.python_version()}"
    )
    parser.add_argument("--version", action="version", version=versions)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str) -> Parser:
        return commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")

    demo = command("demo", "show packets, a server and its pool at work, in a few seconds")
    _add_transport(demo)

    serve = command("serve", "serve over TCP or UDP and print, or echo, what comes in")
    _add_transport(serve)
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="the address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=port, default=0, metavar="P", help="the port; 0, the default, takes a free one")
    serve.add_argument("--udp", action="store_true", help="serve UDP: a session for each address that sends a packet")
    _add_framing(serve)
    serve.add_argument("--echo", action="store_true", help="send every packet or frame back, print none")
    serve.add_argument("--tls-cert", metavar="FILE", help="serve TLS with the certificate in this PEM file")
    serve.add_argument("--tls-key", metavar="FILE", help="its private key, where that is in a file of its own")
    for name, default, what in (
        ("idle_timeout", DEFAULTS.idle_timeout, "how long a peer may be silent"),
        ("frame_timeout", DEFAULTS.frame_timeout, "how long one packet may take to come"),
    ):
        text = f"{what}, in seconds; 0 for ever (default {default:g})"
        serve.add_argument(f"--{name.replace('_', '-')}", type=seconds(name), default=default, metavar="S", help=text)
    most, per_host = DEFAULTS.max_sessions, DEFAULTS.max_sessions_per_host
    text = f"how many sessions at a time (default {most})"
    serve.add_argument("--max-sessions", type=number, default=most, metavar="N", help=text)
    text = f"how many of them from one host (default {per_host})"
    serve.add_argument("--max-sessions-per-host", type=number, default=per_host, metavar="N", help=text)
    _add_max_payload(serve)
    text = "how long sessions may take to finish after SIGINT or SIGTERM, in seconds (default 5)"
    serve.add_argument("--grace", type=seconds("grace"), default=5.0, metavar="S", help=text)
    text = "log one record a line for machines: logfmt, the default with --log, or json"
    serve.add_argument("--log", nargs="?", choices=LOG_FORMS, const=LOG_FORMS[0], metavar="FORM", help=text)
    text = "log also who connects and goes without sending a byte, as load balancers do"
    serve.add_argument("--verbose", action="store_true", help=text)
    text = "serve metrics for Prometheus on this port; 0 takes a free one"
    serve.add_argument("--metrics-port", type=port, metavar="P", help=text)
    serve.add_argument("--metrics-host", metavar="H", help="the address to serve them on (default 127.0.0.1)")

    send = command("send", "send one packet, or with --framing one frame, and print the replies")
    send.add_argument("server", metavar="HOST", help="where the server is")
    send.add_argument("port", type=port, metavar="PORT", help="its port")
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

    encode = command("encode", "print the frame of a packet in hex")
    add_packet_options(encode)
    encode.add_argument("--raw", action="store_true", help="write its bytes as they are")

    decode = command("decode", "show what each byte of a stream is, and the packets or frames in it")
    text = "hex, or a file that holds bytes or hex; - or nothing reads standard input"
    decode.add_argument("source", nargs="*", metavar="HEX|FILE|-", help=text)
    _add_framing(decode)
    _add_max_payload(decode)

    command("transports", "list the installed adapters and what each can do")
    return parser


def _add_transport(parser: Parser) -> None:
    parser.add_argument("--transport", default=DEFAULT, metavar="T", help=f"the adapter (default {DEFAULT})")


def _add_framing(parser: Parser) -> None:
    text = f"where frames begin and end: {NAMES} (default {DEFAULT_FRAMING}, whose frames hold packets)"
    parser.add_argument("--framing", type=framing_named, metavar="NAME", help=text)


def _add_max_payload(parser: Parser) -> None:
    text = f"the longest payload, or frame of another framing, in bytes (default {DEFAULTS.max_payload})"
    parser.add_argument("--max-payload", type=number, default=DEFAULTS.max_payload, metavar="N", help=text)
