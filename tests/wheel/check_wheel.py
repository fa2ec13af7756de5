"""Builds a wheel, installs it in an empty virtualenv, and runs it from a directory that has nothing of the source.

    python tests/wheel/check_wheel.py

Ends with status 0 if twistd lists streampush, the command works, and a server started with `twistd` becomes ready.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN = 30.0
STOP_WITHIN = 20.0


def run(*command: str | Path, cwd: Path) -> str:
    """The command's output; ends the check if it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # another process: nothing to wait on but the clock
    sys.exit(f"the server was not ready within {READY_WITHIN:g} s")


def rest_port(server: subprocess.Popen[bytes]) -> int:
    """From the line of the log that says what the kernel gave."""
    assert server.stdout is not None
    for line in server.stdout:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        rest = str(record.get("rest", ""))
        if rest:
            return int(rest.rpartition(":")[2])
    sys.exit("the server ended before it listened")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="streampush-wheel-") as name:
        place = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", place / "dist", ROOT, cwd=place)
        (wheel,) = (place / "dist").glob("*.whl")
        venv.create(place / "venv", with_pip=True)
        bin_dir = place / "venv" / "bin"
        run(bin_dir / "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=place)
        if "streampush" not in run(bin_dir / "twistd", "--help", cwd=place):
            sys.exit("twistd does not list streampush")
        run(bin_dir / "streampush", "init", place / "dev", cwd=place)
        print(run(bin_dir / "streampush", "check", place / "dev" / "streampush.toml", cwd=place).strip())
        ports = ["--set", "listen.port=0", "--set", "rest.port=0", "--set", "listen.address=127.0.0.1"]
        command = [bin_dir / "twistd", "--nodaemon", "--pidfile=", "streampush", "--config", place / "dev/streampush.toml", *ports]
        server = subprocess.Popen([str(word) for word in command], cwd=place, stdout=subprocess.PIPE)
        try:
            wait_ready(rest_port(server), server)
        finally:
            server.terminate()
            status = server.wait(STOP_WITHIN)
        if status != -signal.SIGTERM:  # twistd ends by the signal that it was sent
            sys.exit(f"the server stopped with {status}")
        print(f"{wheel.name}: installed in an empty virtualenv, ready, stopped")


if __name__ == "__main__":
    main()
