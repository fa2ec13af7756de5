"""What goes on between a node and Apple, as a document for people and programs: schema ApnsStatus of the REST API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streampush.apns.apps import App, Route
from streampush.apns.client_figures import ClientFigures
from streampush.apns.pool_figures import LinkFigures, PoolFigures
from streampush.apns.push_certificate import PushCertificate


def app_document(app: App, figures: ClientFigures, wall: float) -> dict[str, Any]:
    """An app with what waits, what ended how, and how its credential stands. `wall`: Unix seconds."""
    credential = app.route.credential
    certificate = credential if isinstance(credential, PushCertificate) else None
    age = figures.token_age
    return {
        "name": app.name,
        "bundle_id": app.settings.bundle_id,
        "environment": app.settings.environment,
        "host": app.route.host,
        "port": app.route.port,
        "key_id": "" if isinstance(credential, PushCertificate) else credential.key_id,
        "token_age": None if age is None else round(age, 1),
        "certificate_days": None if certificate is None else round(certificate.days_left(wall), 1),
        "stopped_by": figures.stopped_by,
        "stopped_topics": list(figures.stopped_topics),
        "breaker": figures.breaker.value,
        "clock_offset": round(figures.clock_offset, 1),
        "queued": figures.queued,
        "resting": figures.resting,
        "held": figures.held,
        "in_flight": figures.in_flight,
        "limit": figures.limit,
        "delivered": figures.delivered,
        "others": [
            {"outcome": outcome, "reason": reason, "pushes": number}
            for (outcome, reason), number in sorted(figures.outcomes.items())
            if outcome != "delivered"
        ],
    }


def pool_document(route: Route, apps: Iterable[str], figures: PoolFigures, now: float) -> dict[str, Any]:
    """The connections of one route, with their timelines. `apps`: whose they are. `now`: seconds of the pool's clock."""
    return {
        "host": route.host,
        "port": route.port,
        "apps": sorted(apps),
        "waiting": figures.queued + figures.resting,
        "fault": figures.fault,
        "connections": [_link(link, now) for link in figures.links],
        "past": [_link(link, now) for link in figures.past],
    }


def apns_document(apps: list[dict[str, Any]], pools: list[dict[str, Any]]) -> Mapping[str, Any]:
    """All of it."""
    return {"apps": apps, "routes": pools}


def _link(link: LinkFigures, now: float) -> dict[str, Any]:
    return {
        "number": link.number,
        "address": link.address,
        "state": link.state.value,
        "in_flight": link.in_flight,
        "sent": link.sent,
        "answers": link.answers,
        "round_trip_ms": None if link.round_trip is None else round(link.round_trip * 1000, 1),
        "timeline": [{"ago": round(now - moment.at, 3), "what": moment.what} for moment in link.moments],
    }
