"""Answers to queries from a published index."""
