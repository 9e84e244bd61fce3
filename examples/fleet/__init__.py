"""Devices that move between two gateways, and a web service that reaches them wherever they are, over NATS."""
