"""Hits for people to look at: contact sheets and HTML galleries."""
