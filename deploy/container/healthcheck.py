"""Ends with status 0 if streampush in this container answers at the address in STREAMPUSH_HEALTH (default: REST on loopback).

    STREAMPUSH_HEALTH=https://localhost:7480/healthz STREAMPUSH_HEALTH_CA=/etc/streampush/ca.crt python healthcheck.py

`/healthz` says that the process lives, and is what a container is restarted by. `/readyz` also says whether its store works and
whether it is draining, which no restart mends.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

DEFAULT = "http://127.0.0.1:7480/healthz"
TIMEOUT = 4.0
"""Seconds, below the 5 s of the container file."""


def main() -> int:
    address = os.environ.get("STREAMPUSH_HEALTH", DEFAULT)
    if not address.startswith(("http://", "https://")):
        print(f"STREAMPUSH_HEALTH is {address!r}, and must begin with http:// or https://")
        return 1
    try:
        trust = ssl.create_default_context(cafile=os.environ.get("STREAMPUSH_HEALTH_CA") or None)
        with urllib.request.urlopen(address, timeout=TIMEOUT, context=trust) as answer:  # noqa: S310 - checked above
            print(f"{answer.status} {address}")
            return 0
    except (urllib.error.URLError, OSError) as error:
        print(f"{address}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
