"""Makes `twistd streampush` known to twistd."""

from twisted.application.service import ServiceMaker

streampush = ServiceMaker(
    "streampush",
    "streampush.tap",
    "Push messages to native apps over mutual TLS.",
    "streampush",
)
