"""WebSocket: what may be asked for, the handshake, frames, and all of it as records between a socket and a session."""
