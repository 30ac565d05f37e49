"""Files on disk: names, atomic writes, checksums, canonical JSON, locks."""
