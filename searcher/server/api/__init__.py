"""The HTTP API: reading of requests, answers, routes."""
