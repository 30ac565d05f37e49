"""Approximate indexes: planned, trained, tuned on real queries."""
