"""What an image file says of itself beside its pixels, in EXIF, XMP and IPTC, read from bytes that are in hand."""
