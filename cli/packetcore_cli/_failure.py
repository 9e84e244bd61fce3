"""What a command says when it cannot do what was asked: one line, and an exit code."""

from __future__ import annotations

import os
import re
import socket
import ssl

EXIT_CODES = {
    0: "It is done, or nobody reads any more what is printed.",
    1: "It could not be done. Also: something differs from what it was compared with (replay), is malformed (decode "
    "--check), was not replied to (bench), or sessions were cut off by a second signal (serve, tap).",
    2: "The command line makes no sense.",
    130: "It was interrupted with Ctrl-C.",
}
"""What the exit codes of all commands mean. With 1 and 2, one line on standard error says what was wrong."""


NO_PEM = "no certificate, or no key, in PEM"
"""What OpenSSL has no words for."""


class Failure(Exception):
    """The command ends with this message; nothing else is printed."""

    exit_code = 1


class WrongUsage(Failure):
    """The command line itself makes no sense."""

    exit_code = 2


def reason_of(error: Exception) -> str:
    """Why the system or a runtime refused, in its own words and without its details."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate not trusted: {error.verify_message}"
        case ssl.SSLError():  # its errno is OpenSSL's, not the system's
            text = error.reason.lower().replace("_", " ") if error.reason else error.strerror or "TLS failed"
            text = re.sub(r" ?\(_ssl\.c:\d+\)$", "", text)
            return NO_PEM if text.lower().endswith("pem lib") else text
        case socket.gaierror():
            return error.strerror or "name not known"
        case OSError() if error.errno:
            return os.strerror(error.errno)
    return str(error) or type(error).__name__
