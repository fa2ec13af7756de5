"""Payload bytes to messages and back: the only room that touches the generated protobuf code, in `encoding` and `decoding`.

An envelope is a pair `(id, message)`; `id` 0 means unsolicited. docs/protocol.md section 4.
"""

from __future__ import annotations

from streampush.protocol.decoding import decode
from streampush.protocol.encoding import encode

__all__ = ["decode", "encode"]
