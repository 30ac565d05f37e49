"""Decoding in processes: images become bytes in memory that is shared with the process that encodes them."""
