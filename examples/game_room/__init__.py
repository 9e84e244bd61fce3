"""A game room: browsers by WebSocket and native clients by UDP, in one arena."""
