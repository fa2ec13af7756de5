"""The field blocks of pushes, read back by another implementation of HPACK."""

from __future__ import annotations

import hpack
from hypothesis import given
from hypothesis import strategies as st

from streampush.apns.push import MAX_COLLAPSE_ID, ApnsPush
from streampush.apns.request_heads import RequestHeads

APNS_ID = "123e4567-e89b-12d3-a456-426614174000"

pushes = st.builds(
    ApnsPush,
    device_token=st.sampled_from(("aa" * 32, "bb" * 50)),
    payload=st.just(b'{"aps":{}}'),
    topic=st.sampled_from(("com.example.app", "com.example.other")),
    priority=st.sampled_from((5, 10)),
    expiration=st.none() | st.sampled_from((0, 1_790_000_000, 1_790_000_001, 4_294_967_295)),
    collapse_id=st.text("ab c", max_size=MAX_COLLAPSE_ID),
)


@given(st.lists(pushes, min_size=1, max_size=8))
def test_each_block_says_what_its_push_says_whatever_came_before(sent: list[ApnsPush]) -> None:
    heads = RequestHeads("api.push.apple.com", None)
    decoder = hpack.Decoder()
    for push in sent:
        fields = decoder.decode(heads.block(push, APNS_ID))
        wanted = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "api.push.apple.com"),
            (":path", f"/3/device/{push.device_token}"),
            ("apns-topic", push.topic),
            ("apns-push-type", "alert"),
            ("apns-priority", str(push.priority)),
            ("apns-id", APNS_ID),
        ]
        if push.expiration is not None:
            wanted.append(("apns-expiration", str(push.expiration)))
        if push.collapse_id:
            wanted.append(("apns-collapse-id", push.collapse_id))
        assert fields == wanted
