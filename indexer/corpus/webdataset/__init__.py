"""Webdataset corpora: tar shards, read in place."""
