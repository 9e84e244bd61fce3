"""A device gateway: certificates, heartbeats, commands with replies, who is offline, metrics and a page."""
