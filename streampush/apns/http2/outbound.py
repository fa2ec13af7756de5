"""What is to be written, and which requests have left."""

from __future__ import annotations

from streampush.apns.http2.frames import HIGHEST_MAX_FRAME_SIZE, PREFACE, FrameReader, FrameType, frame


class Outbound:
    """The outbound buffer of a connection.

    `frames`: pieces that make whole frames when joined; whoever appends a piece of a frame appends the rest before anything else.
    `written_to`: the highest stream id that may have left the buffer; the server cannot know of higher ones.
    `replied`: bytes in the buffer that answer PING and SETTINGS; all others are bounded by what we asked for.
    `taken`: whether anything ever left.
    """

    __slots__ = ("_dropped", "frames", "replied", "taken", "written_to")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.written_to = 0
        self.replied = 0
        self.taken = False
        self._dropped: set[int] = set()

    def reply(self, frame: bytes) -> None:
        """A frame that the server can make us write as often as it likes."""
        self.frames.append(frame)
        self.replied += len(frame)

    def drop(self, stream_id: int) -> None:
        """Nothing of this stream has left, and nothing will: the next `sweep` takes it out."""
        self._dropped.add(stream_id)

    def sweep(self) -> int:
        """Takes the frames of dropped streams out; gives how many bytes of the connection's window they had."""
        if not self._dropped:
            return 0
        data = b"".join(self.frames)
        kept: list[bytes] = []
        if data.startswith(PREFACE):
            kept.append(PREFACE)
            data = data[len(PREFACE) :]
        freed = 0
        for kind, flags, stream_id, payload in FrameReader(HIGHEST_MAX_FRAME_SIZE).feed(data):
            if stream_id not in self._dropped:
                kept.append(frame(kind, flags, stream_id, payload))
            elif kind == FrameType.DATA:
                freed += len(payload)
        self._dropped.clear()
        self.frames[:] = kept  # others hold this list
        return freed

    def clear(self) -> None:
        """Nothing of what is here will leave."""
        self._dropped.clear()
        self.frames.clear()
        self.replied = 0

    def take(self, written_to: int) -> bytes:
        """Everything. `written_to`: the highest stream id that was begun."""
        data = b"".join(self.frames)
        self.frames.clear()
        self.replied = 0
        self.taken = self.taken or bool(data)
        self.written_to = written_to
        return data
