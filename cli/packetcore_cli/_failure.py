"""What a command says when it cannot do what was asked: one line, and an exit code."""

from __future__ import annotations

import os
import re
import socket
import ssl


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
            return re.sub(r" ?\(_ssl\.c:\d+\)$", "", text)
        case socket.gaierror():
            return error.strerror or "name not known"
        case OSError() if error.errno:
            return os.strerror(error.errno)
    return str(error) or type(error).__name__
