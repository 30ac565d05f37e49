"""Formats that Pillow itself does not read: HEIF, JPEG XL, RAW by its preview, and films."""
