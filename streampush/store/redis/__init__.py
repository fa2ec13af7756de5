"""The store of several processes and machines, in Redis or Valkey: each operation is one script, and so one atomic step."""

from streampush.store.redis.link import RedisLink
from streampush.store.redis.scripts import Scripts

__all__ = ["RedisLink", "Scripts"]
