"""Telemetry from a serial line into a database: noise, gaps, batches, backpressure, restarts."""
