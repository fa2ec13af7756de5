"""Apple's part in the demo: `streampush apns-sim`, and the settings of a server that pushes to it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from demo.processes import Story

BUNDLE_ID = "com.example.demo"

ORDERS = """
[[order]]
kind = "reject"
reason = "Unregistered"
at = 2
ago = 0
"""
"""The second push is answered as if the app had been deleted from the device."""

APP = """
[[apns.apps]]
name = "demo"
bundle_id = "{bundle_id}"
environment = "sandbox"
host = "127.0.0.1"
port = {port}
ca = "apple/ca.crt"
key = "apple/AuthKey_SIMKEY0001.p8"
team_id = "SIMTEAM001"
key_id = "SIMKEY0001"
fallback_after = 1
"""


def start_apple(root: Path) -> Story:
    """The simulated Apple on a port that the kernel gives; its files are in the folder `apple`."""
    folder = root / "apple"
    folder.mkdir()
    orders = folder / "orders.toml"
    orders.write_text(ORDERS)
    command = [str(Path(sys.executable).with_name("streampush")), "apns-sim", "--port", "0", "--topic", BUNDLE_ID]
    return Story("Apple", [*command, "--mint", str(folder), "--orders", str(orders)], stays=True)


def configure(root: Path, apple: Story) -> int:
    """Lets the server of this folder push there; gives the port. Raises Failed."""
    told = apple.wait("its port", lambda record: _port(str(record["event"])) > 0)
    port = _port(str(told["event"]))
    with (root / "streampush.toml").open("a") as settings:
        settings.write(APP.format(bundle_id=BUNDLE_ID, port=port))
    return port


def _port(line: str) -> int:
    found = re.search(r"127\.0\.0\.1(?::| port )([0-9]+)", line)
    return 0 if found is None else int(found[1])
