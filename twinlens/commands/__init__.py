"""The commands of `twinlens`, one module a command."""
