"""Audit of an index: what is probably wrong with the collection, told from vectors, catalog and hashes alone."""

from __future__ import annotations

from .report import Audit, audit_index

__all__ = ["Audit", "audit_index"]
