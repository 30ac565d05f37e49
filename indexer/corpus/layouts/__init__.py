"""Corpus layouts that are recognised by their files: one module a layout."""
