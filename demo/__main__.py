"""The product in one run: `make demo`.

Mints a CA and certificates, starts a simulated Apple and the real server with a new store on disk, connects devices over mutual
TLS in processes of their own, publishes to a device, a user and a topic over REST and over the framed protocol, cuts one device's
connection and lets it resume. One device is away for a while: its backlog is shown, a message in it is recalled, it comes back for
the rest. Receipts say what became of a message on each device. Messages with an alert go on to Apple where the device is away;
where it is not the push is cancelled, and a device token that Apple calls dead is forgotten. Ends with one line of counts; status
1, and a line that says so, if any message is missing or came twice.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from demo.api import RestApi
from demo.apple import configure, start_apple
from demo.ledger import Ledger
from demo.processes import Failed, Record, Story, device_command, publisher_command, running, server_command

ROOT = Path("var/demo")
TOPIC = "news/today"
DEVICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "phone-1": ("alice", (TOPIC,)),
    "tablet-1": ("alice", ()),
    "sensor-1": ("", (TOPIC,)),
    "watch-1": ("bob", (TOPIC,)),
}
BACKEND = "backend"


def say(text: str) -> None:
    print(text, flush=True)


class Demo:
    """The steps of the run, in their order."""

    def __init__(self, bin_dir: Path) -> None:
        self._bin = bin_dir
        self._port = 0
        self._api: RestApi
        self._backend: Story
        self._ledger = Ledger(
            {
                device: frozenset({f"device:{device}", *([f"user:{user}"] if user else []), *topics})
                for device, (user, topics) in DEVICES.items()
            }
        )
        self._ended: list[Story] = []  # a device that was away tells its story in two parts
        self._stories: dict[str, Story] = {}
        self._pushes = {"delivered": 0, "cancelled": 0, "rejected": 0}

    # ----------------------------------------------------------------------------------------------------------- setting up

    def mint(self) -> None:
        """A new directory: a CA, certificates for server, devices and a publisher, a REST key."""
        shutil.rmtree(ROOT, ignore_errors=True)
        command = [str(self._bin / "streampush"), "init", str(ROOT), "--publisher", BACKEND]
        for device, (user, _) in DEVICES.items():
            command += ["--device", f"{device}:{user}" if user else device]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"streampush init: {done.stdout}{done.stderr}")
        say(f"minted    a CA and certificates for the server, {len(DEVICES)} devices and the publisher {BACKEND!r} in {ROOT}")

    def await_server(self, server: Story) -> None:
        """The server has told its ports and is ready."""
        record = server.wait("a line with its ports", lambda record: "rest" in record)
        self._port = record["port"]
        self._api = RestApi(record["rest"], ROOT / "secrets" / "rest.key")
        self._api.await_ready()
        say(f"server    twistd streampush is ready: devices on 127.0.0.1:{self._port} (mutual TLS), REST on {record['rest']}")

    def connect(self) -> None:
        """The backend and all devices, each in a process of its own."""
        self._backend = Story(BACKEND, publisher_command(ROOT, self._port, BACKEND))
        for device in DEVICES:
            self._switch_on(device)
        self._backend.wait("a greeting", lambda record: record["event"] == "ready")
        for device, story in self._stories.items():
            story.wait("a greeting", lambda record: record["event"] == "ready")
            user, topics = DEVICES[device]
            say(f"device    {device} is connected{f', user {user}' if user else ''}{f', follows {TOPIC}' if topics else ''}")

    def _switch_on(self, device: str) -> Story:
        story = self._stories[device] = Story(device, device_command(ROOT, self._port, device, DEVICES[device][1]))
        return story

    def _switch_off(self, device: str) -> None:
        story = self._stories[device]
        story.stop()
        self._ended.append(story)
        say(f"away      {device} is switched off")

    def stop(self) -> None:
        """Ends everything but the server."""
        for story in (*self._stories.values(), *([self._backend] if hasattr(self, "_backend") else [])):
            story.stop()

    # ----------------------------------------------------------------------------------------------------------- publishing

    def publish_rest(self, channel: str, text: str, *, stays: bool = True, alert: str = "") -> str:
        """POST /v1/publish; gives the message's id. `stays`: it is not recalled before its time. `alert`: a title."""
        message: dict[str, object] = {"channel": channel, "payload": text}
        if alert:
            message["alert"] = {"title": alert}
        stored = self._api.ask("POST", "/v1/publish", message)
        if stays:
            self._ledger.expect(channel, text)
        else:
            self._ledger.recalled()
        say(f"REST      {channel} <- {text!r}: offset {stored['offset']}, connections {stored['connections']}")
        return str(stored["message_id"])

    def publish_command(self, channel: str, text: str) -> None:
        """`streampush publish` with the publisher's certificate, over the same protocol as the devices."""
        publish = [str(self._bin / "streampush"), "publish", channel, text, "--dir", str(ROOT), "--publisher", BACKEND]
        done = subprocess.run([*publish, "--port", str(self._port)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"streampush publish: {done.stdout}{done.stderr}")
        self._ledger.expect(channel, text)
        say(f"framed    {channel} <- {text!r}: {done.stdout.strip()}")

    def publish_framed(self, channel: str, text: str) -> str:
        """By the backend's program, over its one connection; gives the message's id."""
        before = len(self._backend.events("published"))
        self._backend.say(json.dumps({"channel": channel, "text": text}))
        self._ledger.expect(channel, text)

        def answered(records: list[Record]) -> Record | None:
            return next(iter([record for record in records if record["event"] == "published"][before:]), None)

        stored = self._backend.wait_all("an answer", answered)
        say(f"framed    {channel} <- {text!r}: offset {stored['offset']}, connections {stored['connections']}")
        return str(stored["id"])

    # ------------------------------------------------------------------------------------------------------------ the story

    def _messages(self, device: str) -> list[Record]:
        stories = [*(story for story in self._ended if story.name == device), self._stories[device]]
        return [record for story in stories for record in story.events("message")]

    def arrived(self) -> None:
        """Waits until every device has as many messages as it must get."""
        for device, story in self._stories.items():
            due = self._ledger.due(device) - sum(len(old.events("message")) for old in self._ended if old.name == device)

            def met(records: list[Record], due: int = due) -> Record | None:
                return {} if sum(record["event"] == "message" for record in records) >= due else None

            try:
                story.wait_all(f"{due} messages", met)
            except Failed as failed:
                say(f"missing   {failed}")

    def cut_and_resume(self) -> None:
        """phone-1 loses its connection, messages are published meanwhile, it comes back for them."""
        phone = self._stories["phone-1"]
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

    def away_and_back(self) -> None:
        """tablet-1 is switched off; what is published meanwhile waits for it, and one message is taken back before it is there."""
        self._switch_off("tablet-1")
        self.publish_rest("device:tablet-1", "charge me")
        self.publish_rest("user:alice", "dinner at eight")
        wrong = self.publish_rest("device:tablet-1", "sent by mistake", stays=False)
        waiting = self._api.ask("GET", "/v1/devices/tablet-1/backlog")["channels"]
        counts = [f"{row['waiting']} on {row['channel']}" for row in waiting if row["waiting"]]
        say(f"backlog   tablet-1: {', '.join(counts)} wait for it")
        recalled = self._api.ask("DELETE", f"/v1/messages/{wrong}")
        say(f"recall    'sent by mistake', which was {recalled['was']}: tablet-1 will never see it")
        self._switch_on("tablet-1").wait("a greeting", lambda record: record["event"] == "ready")
        self.arrived()
        say("back      tablet-1 is on again and has collected its backlog")

    def recall_everywhere(self) -> None:
        """A message that both of alice's devices have is taken back: both are told."""
        message_id = self.publish_rest("user:alice", "you have won")
        self.arrived()
        self._api.ask("DELETE", f"/v1/messages/{message_id}")
        for device in ("phone-1", "tablet-1"):
            told = self._stories[device].wait("a recall", lambda record: record.get("recalls") == message_id)
            say(f"recall    {device} is told on {told['channel']} to remove 'you have won'")

    def receipt(self) -> None:
        """What became of one message on each device of its user: as frames while it happens, and whenever it is asked for."""
        message_id = self.publish_framed("user:alice", "did you read this?")
        for device in ("phone-1", "tablet-1"):
            told = {"event": "receipt", "id": message_id, "device": device, "milestone": "processed"}
            self._backend.wait("a receipt", told.__eq__)
            say(f"receipt   told to the publisher: {device} has processed it")
        for row in self._api.await_receipt(message_id, 2):
            times = row["milestones_ms"]
            steps = ", ".join(f"{name} +{at - times['accepted']} ms" for name, at in times.items())
            say(f"receipt   GET /v1/messages/{message_id}: {row['device_id']}: {steps}")

    def pushes(self) -> None:
        """Messages with an alert: pushed by Apple where the device is away, cancelled where it acknowledges in time; a device token
        that Apple calls dead is forgotten. Both devices come back for their messages."""
        self._switch_off("tablet-1")
        self._push("tablet-1", "your parcel is at the door", "Parcel", "delivered")
        self._push("phone-1", "rain in ten minutes", "Weather", "cancelled")
        self._switch_off("watch-1")
        self._push("watch-1", "your parcel is at the door", "Parcel", "rejected")
        left = self._push("watch-1", "still at the door", "Parcel", "not_sent")
        say(f"forgotten the token of watch-1: the next message found {left!r}")
        for device in ("tablet-1", "watch-1"):
            self._switch_on(device).wait("a greeting", lambda record: record["event"] == "ready")
        self.arrived()
        say("back      tablet-1 and watch-1 are on again and have collected what they were pushed for")

    def _push(self, device: str, text: str, title: str, outcome: str) -> str:
        """Gives the reason of an outcome that must be this one."""
        message_id = self.publish_rest(f"device:{device}", text, alert=title)
        push = self._api.await_push(message_id)
        if push["outcome"] != outcome:
            raise Failed(f"the push to {device} should be {outcome}, and is {push}")
        if outcome in self._pushes:
            self._pushes[outcome] += 1
            told = {
                "delivered": f"Apple took it as {push['apns_id']}",
                "cancelled": f"none, the device has {push['reason']} the message",
                "rejected": f"Apple says {push['reason']}",
            }
            say(f"push      {device}: {told[outcome]}")
        return push["reason"]

    def count(self) -> int:
        """The last line; 0 if everything came once."""
        got = {device: [(record["channel"], record["text"]) for record in self._messages(device)] for device in DEVICES}
        wrong, counts, status = self._ledger.reckon(got)
        for line in wrong:
            say(line)
        pushes = self._pushes
        told = f"{pushes['delivered']} pushed by Apple, {pushes['cancelled']} cancelled, {pushes['rejected']} dead token removed"
        say(f"{counts}, 1 connection cut and resumed, 2 devices away, 2 messages recalled, {told}")
        return status


def tell(demo: Demo) -> None:
    """The story, once the server is there."""
    demo.connect()
    demo.publish_rest("device:sensor-1", "measure once")
    demo.publish_rest("user:alice", "you have mail")
    demo.publish_rest(TOPIC, "first edition")
    demo.publish_command("device:watch-1", "time to stand up")
    demo.publish_framed("user:alice", "mail again")
    demo.publish_framed(TOPIC, "second edition")
    demo.arrived()
    demo.cut_and_resume()
    demo.publish_framed("device:phone-1", "good to see you")
    demo.arrived()
    demo.away_and_back()
    demo.recall_everywhere()
    demo.receipt()
    demo.pushes()
    demo.arrived()


def show(demo: Demo, server: Story) -> None:
    """The story, from the start of the server on."""
    demo.await_server(server)
    try:
        tell(demo)
    finally:
        demo.stop()


def main() -> int:
    demo = Demo(Path(sys.executable).parent)
    try:
        demo.mint()
        apple = start_apple(ROOT)
        with running(apple):
            say(f"Apple     streampush apns-sim is on 127.0.0.1:{configure(ROOT, apple)} (TLS, HTTP/2)")
            server = Story("server", server_command(ROOT), stays=True)
            with running(server):
                show(demo, server)
        return demo.count()
    except (Failed, OSError) as failed:
        say(f"FAILED    {failed}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
