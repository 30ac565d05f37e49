"""The two towers of HREM over region features and words, and what they read."""
