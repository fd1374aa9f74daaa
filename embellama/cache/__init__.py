"""Vectors that were computed before: in memory, on disk, or both.

The key says everything a vector depends on (`cache_key`), the value carries a checksum of it, and
a file that is damaged is set aside: what a cache returns is what was put in, or nothing.
"""

from embellama.cache.front import EmbeddingCache
from embellama.cache.key import cache_key, cache_keys
from embellama.cache.stats import CacheStats

__all__ = ["CacheStats", "EmbeddingCache", "cache_key", "cache_keys"]
