"""The encode pipeline: shards of items are decoded, batched, encoded and written."""
