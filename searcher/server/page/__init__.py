"""The web page: its address, cards, rendering, style and script."""
