"""Lexical search: terms of texts, the inverted index of a collection on disk, and BM25."""
