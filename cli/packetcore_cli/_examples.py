"""What commands look like in use: the end of each one's --help, and a section of the manual page."""

from __future__ import annotations

EXAMPLES = {
    "demo": """examples:
  packetcore demo
  packetcore demo --transport blocking           on plain blocking sockets""",
    "serve": """examples:
  packetcore serve --port 7000                   print what comes in
  packetcore serve --port 7000 --app gateway:Gateway --console 8080
  packetcore serve --port 7000 --app gateway:Gateway --workers 4 --metrics-port 9100
  packetcore serve --port 7000 --app company.devices:handle --transport blocking --framing u16""",
    "send": """examples:
  packetcore send 127.0.0.1 7000 --id 0x10 --data hello
  packetcore send 127.0.0.1 7000 --id 7 --hex "01 fe" --replies 3 --timeout 5
  packetcore send gateway.example 7000 --tls --id 7 --file report.bin
  packetcore send 192.0.2.255 7000 --udp --broadcast --id 1 --replies 10
  packetcore send --serial /dev/ttyUSB0 --baudrate 57600 --framing cobs --hex 01""",
    "encode": """examples:
  packetcore encode --id 0x10 --hex "fe 01"
  packetcore encode --id 16 --data hello --raw | nc 127.0.0.1 7000""",
    "decode": """examples:
  packetcore decode fe001000000100000002fd0101fe
  packetcore decode field.bin                    bytes, or hex
  packetcore decode field.pcapng --only 2        what tcpdump, Wireshark or --record have captured
  tcpdump -i eth0 -U -w - port 7000 | packetcore decode --follow
  packetcore decode --follow device.log          lines of hex, as they are added
  packetcore decode --json field.pcapng | jq "select(.malformed)"
  packetcore decode --check field.bin            for scripts: 1 where something is malformed""",
    "replay": """examples:
  packetcore replay field.pcapng                 who said what and when
  packetcore replay field.pcapng --compare yesterday.pcapng
  packetcore replay field.pcapng --shrink small.pcapng
  packetcore replay field.pcapng --to 127.0.0.1:7000 --speed max""",
    "dissector": """examples:
  packetcore dissector --port 7000 > ~/.local/lib/wireshark/plugins/packetcore.lua
  tshark -X lua_script:packetcore.lua -r field.pcapng -Y "packetcore.id == 0x10"
  tshark -X lua_script:packetcore.lua -r field.pcapng -d tcp.port==7001,packetcore""",
    "bench": """examples:
  packetcore bench 127.0.0.1 7000                a server of serve --echo, or of yours
  packetcore bench 127.0.0.1 7000 --connections 50 --in-flight 32 --seconds 10
  packetcore bench 127.0.0.1 7000 --rate 20000   latencies at a rate that it can carry
  packetcore bench gateway.example 7000 --tls --id 7 --hex 0102 --packets 1000 --json
  packetcore bench 127.0.0.1 7000 --udp --connections 50""",
    "tap": """examples:
  packetcore tap 7001 7000                       show what clients of port 7001 and the server on 7000 say
  packetcore tap 7001 gateway.example:7000 --latency 0.2 --jitter 0.1 --bandwidth 2000
  packetcore tap 7001 7000 --cut 3 --gap 0.01    all bytes, in pieces of 1 to 3
  packetcore tap 7001 7000 --corrupt 0.001 --direction to-server --seed 7
  packetcore tap 7001 7000 --reset-after 4096B   in the midst of a packet
  packetcore tap 7001 7000 --black-hole-after 30s
  packetcore tap 7001 7000 --udp --loss 0.1 --duplication 0.05 --jitter 0.2
  packetcore tap 7001 7000 --interactive         then: stall, resume, reset, latency 0.5, help ...""",
    "transports": """examples:
  packetcore transports""",
    "completion": """examples:
  packetcore completion bash > ~/.local/share/bash-completion/completions/packetcore
  packetcore completion zsh > ~/.zfunc/_packetcore        with fpath+=~/.zfunc before compinit
  packetcore completion fish > ~/.config/fish/completions/packetcore.fish""",
}
