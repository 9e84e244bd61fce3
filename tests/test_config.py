"""Every limit and timeout is checked where it is given."""

from __future__ import annotations

import dataclasses

import pytest

from packetcore import Config, Packet

PING = Packet(0, b"ping")


def config(**values: object) -> Config:
    make: type = Config
    made = make(**values)
    assert isinstance(made, Config)
    return made


def test_the_defaults_bound_what_a_stranger_can_take() -> None:
    default = Config()
    for name in ("idle_timeout", "frame_timeout", "connect_timeout", "close_timeout", "message_timeout"):
        assert 0 < getattr(default, name) <= 60
    for name in ("max_outstanding", "max_sessions", "max_sessions_per_host"):
        assert getattr(default, name) is not None
    # What one session may hold at most, in bytes: an open frame, messages under way and
    # what it has not read.
    held = 2 * (default.max_payload + 9) + default.max_message * default.max_pending_messages
    assert held + (default.max_outstanding or 0) <= 64 * 1024 * 1024


def test_it_cannot_be_changed_and_takes_no_positions() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Config(), "max_payload", 1)  # noqa: B010
    make: type = Config
    with pytest.raises(TypeError):
        make(1)


def test_a_changed_copy_is_checked_too() -> None:
    assert dataclasses.replace(Config(), max_payload=1).max_payload == 1
    with pytest.raises(ValueError, match="max_payload"):
        dataclasses.replace(Config(), max_payload=-1)


@pytest.mark.parametrize(
    "values",
    [
        {"max_payload": 0},
        {"max_payload": 0xFFFFFFFF},
        {"idle_timeout": None, "frame_timeout": None, "connect_timeout": None},
        {"close_timeout": None, "message_timeout": None},
        {"idle_timeout": 0.001, "frame_timeout": float("inf")},
        {"keepalive_interval": 5, "keepalive_packet": PING},
        {"keepalive_packet": PING},
        {"max_payload": 4, "keepalive_packet": PING},
        {"write_low_water": 0, "write_high_water": 0, "max_outstanding": 0},
        {"write_low_water": 7, "write_high_water": 7, "max_outstanding": 7},
        {"max_outstanding": None},
        {"max_sessions": None, "max_sessions_per_host": None},
        {"max_sessions": 1, "max_sessions_per_host": 1},
        {"max_message": 1, "max_pending_messages": 1},
        {"on_malformed": "close"},
        {"request_hold": None},
        {"request_hold": 0},
        {"max_datagram": 11},
        {"max_datagram": 65527},
        {"datagram_chunk": 1, "datagram_stream": True},
        {"datagram_chunk": 4096, "max_datagram": 4096},
    ],
)
def test_what_makes_sense_is_accepted(values: dict[str, object]) -> None:
    made = config(**values)
    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_payload": -1}, "max_payload=-1 is out of range 0 to 4294967295"),
        ({"max_payload": 1 << 32}, "max_payload=4294967296 is out of range 0 to 4294967295"),
        *(
            ({name: value}, f"{name}={value} must be above 0 seconds, or None for no limit")
            for name in (
                "idle_timeout",
                "frame_timeout",
                "keepalive_interval",
                "connect_timeout",
                "close_timeout",
                "message_timeout",
            )
            for value in (0, -1.5, float("nan"))
        ),
        *(
            ({name: value}, f"{name}={value} must be at least 1, or None for no limit")
            for name in ("max_sessions", "max_sessions_per_host")
            for value in (0, -1)
        ),
        ({"write_low_water": -1}, "write_low_water=-1 must be between 0 and write_high_water=65536"),
        ({"write_low_water": 65537}, "write_low_water=65537 must be between 0 and write_high_water=65536"),
        ({"max_outstanding": 65535}, "max_outstanding=65535 is below write_high_water=65536"),
        ({"on_malformed": "panic"}, 'on_malformed=\'panic\' must be "skip" or "close"'),
        ({"max_message": 0}, "max_message=0 and max_pending_messages=4 must be at least 1"),
        ({"max_pending_messages": 0}, "max_message=4194304 and max_pending_messages=0 must be at least 1"),
        *(({"max_datagram": value}, f"max_datagram={value} is out of range 11 to 65527") for value in (10, 65528)),
        *(
            (
                {"datagram_chunk": chunk, "max_datagram": 1200},
                f"datagram_chunk={chunk} is out of range 1 to max_datagram=1200, or None to cut nothing",
            )
            for chunk in (-1, 0, 1201)
        ),
        *(
            ({"request_hold": value}, f"request_hold={value} must be at least 0 seconds, or None for no limit")
            for value in (-1, float("nan"))
        ),
        ({"keepalive_interval": 5.0}, "keepalive_interval=5.0 needs a keepalive_packet"),
        (
            {"max_payload": 3, "keepalive_packet": PING},
            "keepalive_packet of 4 bytes exceeds max_payload=3",
        ),
    ],
    ids=str,
)
def test_what_does_not_is_named_with_its_value_and_its_limit(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        config(**values)
    assert str(caught.value) == message
