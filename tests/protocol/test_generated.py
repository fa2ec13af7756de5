"""streampush/_pb is what the generator makes of proto/ today."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.protocol.page import ROOT

pytest.importorskip("grpc_tools", reason="the generator is in the dev extra")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what `make proto` writes."""
    out = tmp_path_factory.mktemp("proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / 'proto'}"]
    command += [f"--python_out={out}", f"--mypy_out={out}", str(ROOT / "proto/streampush/v1/streampush.proto")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": path}, timeout=120)
    return out / "streampush/v1"


@pytest.mark.parametrize("name", ["streampush_pb2.py", "streampush_pb2.pyi"])
def test_the_checked_in_code_is_the_generated_one(generated: Path, name: str) -> None:
    assert (ROOT / "streampush/_pb" / name).read_text() == (generated / name).read_text()
