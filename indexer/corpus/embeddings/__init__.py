"""Ready-made vectors as a corpus, with ids, captions and pairs beside them."""
