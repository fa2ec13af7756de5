"""The product in one run: `make demo`.

Mints a CA and certificates, starts the real server, connects devices over mutual TLS in processes of their own, publishes to a
device, a user and a topic over REST and over the framed protocol, cuts one device's connection and lets it resume. Ends with one
line of counts; status 1, and a line that says so, if any message is missing or came twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from demo.processes import WAIT, Failed, Record, Story, device_command, running, server_command

ROOT = Path("var/demo")
TOPIC = "news/today"
DEVICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "phone-1": ("alice", (TOPIC,)),
    "tablet-1": ("alice", ()),
    "sensor-1": ("", (TOPIC,)),
    "watch-1": ("bob", (TOPIC,)),
}


def say(text: str) -> None:
    print(text, flush=True)


class Demo:
    """What was published, who must get it, and who got it."""

    def __init__(self, bin_dir: Path) -> None:
        self._bin = bin_dir
        self._rest = ""
        self._port = 0
        self._published = 0
        self._expected: dict[str, list[tuple[str, str]]] = {device: [] for device in DEVICES}
        self.stories: dict[str, Story] = {}

    # ----------------------------------------------------------------------------------------------------------- setting up

    def mint(self) -> None:
        """A CA, certificates for server, devices and a publisher, a REST key."""
        command = [str(self._bin / "streampush"), "init", str(ROOT), "--force", "--publisher", "backend"]
        for device, (user, _) in DEVICES.items():
            command += ["--device", f"{device}:{user}" if user else device]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"streampush init: {done.stdout}{done.stderr}")
        say(f"minted    a CA and certificates for the server, {len(DEVICES)} devices and the publisher 'backend' in {ROOT}")

    def await_server(self, server: Story) -> None:
        """The server has told its ports and is ready."""
        record = server.wait("a line with its ports", lambda record: "rest" in record)
        self._port, self._rest = record["port"], record["rest"]
        deadline = time.monotonic() + WAIT
        while True:
            try:
                with urllib.request.urlopen(f"http://{self._rest}/readyz", timeout=5):
                    break
            except urllib.error.URLError as error:
                if time.monotonic() > deadline:
                    raise Failed(f"the server is not ready: {error}") from error
                time.sleep(0.05)
        say(f"server    twistd streampush is ready: devices on 127.0.0.1:{self._port} (mutual TLS), REST on {self._rest}")

    def connect(self) -> None:
        """All devices, each in a process of its own."""
        for device, (_, topics) in DEVICES.items():
            self.stories[device] = Story(device, device_command(ROOT, self._port, device, topics))
        for device, story in self.stories.items():
            story.wait("a greeting", lambda record: record["event"] == "ready")
            user, topics = DEVICES[device]
            say(f"device    {device} is connected{f', user {user}' if user else ''}{f', follows {TOPIC}' if topics else ''}")

    # ----------------------------------------------------------------------------------------------------------- publishing

    def _expect(self, channel: str, text: str) -> None:
        self._published += 1
        for device, (user, topics) in DEVICES.items():
            if channel in (f"device:{device}", f"user:{user}", *topics):
                self._expected[device].append((channel, text))

    def publish_rest(self, channel: str, text: str) -> None:
        """POST /v1/publish with the key that `streampush init` made."""
        key = (ROOT / "secrets" / "rest.key").read_text().strip()
        request = urllib.request.Request(
            f"http://{self._rest}/v1/publish",
            json.dumps({"channel": channel, "payload": text}).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            stored = json.load(answer)
        self._expect(channel, text)
        say(f"REST      {channel} <- {text!r}: offset {stored['offset']}, connections {stored['connections']}")

    def publish_framed(self, channel: str, text: str) -> None:
        """`streampush publish` with the publisher's certificate, over the same protocol as the devices."""
        publish = [str(self._bin / "streampush"), "publish", channel, text, "--dir", str(ROOT), "--publisher", "backend"]
        done = subprocess.run([*publish, "--port", str(self._port)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"streampush publish: {done.stdout}{done.stderr}")
        self._expect(channel, text)
        say(f"framed    {channel} <- {text!r}: {done.stdout.strip()}")

    # ------------------------------------------------------------------------------------------------------------ the story

    def arrived(self) -> None:
        """Waits until every device has as many messages as it must get."""
        for device, story in self.stories.items():
            wanted = len(self._expected[device])

            def met(records: list[Record], wanted: int = wanted) -> Record | None:
                return {} if sum(record["event"] == "message" for record in records) >= wanted else None

            try:
                story.wait_all(f"{wanted} messages", met)
            except Failed as failed:
                say(f"missing   {failed}")

    def cut_and_resume(self) -> None:
        """phone-1 loses its connection, messages are published meanwhile, it comes back for them."""
        phone = self.stories["phone-1"]
        phone.say("drop")
        lost = phone.wait("the loss of its connection", lambda record: record["event"] == "disconnected")
        say(f"cut       phone-1's connection is gone; its client will try again in {lost['next_try_in']:.2f} s")
        self.publish_rest("device:phone-1", "while you were away")
        self.publish_rest(TOPIC, "late edition")
        self.publish_rest("user:alice", "to all your devices, also the absent one")

        def back(records: list[Record]) -> Record | None:
            greetings = [record for record in records if record["event"] == "connected"]
            return greetings[1] if len(greetings) > 1 else None

        again = phone.wait_all("its return", back)
        say(f"resumed   phone-1 is back, proven without loss on {', '.join(sorted(again['recovered']))}")
        missed = {"device:phone-1", "user:alice", TOPIC} - set(again["recovered"])
        if missed:
            raise Failed(f"phone-1 could not recover {missed}")

    def count(self) -> int:
        """The last line; 0 if everything came once."""
        missing = repeated = received = 0
        for device, story in self.stories.items():
            got = Counter((record["channel"], record["text"]) for record in story.events("message"))
            wanted = Counter(self._expected[device])
            received += got.total()
            for what, number in (wanted - got).items():
                missing += number
                say(f"MISSING   {device}: {what[0]} {what[1]!r}")
            for what, number in (got - wanted).items():
                repeated += number
                say(f"REPEATED  {device}: {what[0]} {what[1]!r}")
        total = sum(map(len, self._expected.values()))
        say(
            f"{len(DEVICES)} devices, {self._published} messages published, {total} deliveries due, {received} received, "
            f"{missing} missing, {repeated} repeated, 1 connection cut and resumed"
        )
        return 1 if missing or repeated else 0


def main() -> int:
    demo = Demo(Path(sys.executable).parent)
    try:
        demo.mint()
        server = Story("server", server_command(ROOT))
        with running(server):
            demo.await_server(server)
            try:
                demo.connect()
                demo.publish_rest("device:sensor-1", "measure once")
                demo.publish_rest("user:alice", "you have mail")
                demo.publish_rest(TOPIC, "first edition")
                demo.publish_framed("device:watch-1", "time to stand up")
                demo.publish_framed("user:alice", "mail again")
                demo.publish_framed(TOPIC, "second edition")
                demo.arrived()
                demo.cut_and_resume()
                demo.publish_framed("device:phone-1", "good to see you")
                demo.arrived()
            finally:
                for story in demo.stories.values():
                    story.stop()
        return demo.count()
    except (Failed, OSError) as failed:
        say(f"FAILED    {failed}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
