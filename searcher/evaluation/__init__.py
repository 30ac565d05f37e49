"""An index scored against its own pairs: metrics, ANN recall, reports and plots."""
