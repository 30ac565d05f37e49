"""Pictures from the web, for corpora that name them by URL: an address guard, limits, and nothing unless asked for."""

from .address import is_public
from .fetch import Fetcher, WebLimits
from .url import WebAddress, parse_url, without_credentials

__all__ = ["Fetcher", "WebAddress", "WebLimits", "is_public", "parse_url", "without_credentials"]
