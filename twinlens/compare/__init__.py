"""A comparison of encoders on a captioned corpus: one seeded sample, encoded by each, searched exactly."""
