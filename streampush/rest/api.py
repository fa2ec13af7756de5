"""The HTTP API: publish, look at devices and channels, metrics, health. `openapi.json` is its description.

Every request runs as one coroutine that nothing interrupts: if the client goes away, or the answer takes too long, the work goes on
(a message that is stored must also be delivered) and only its answer is dropped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from klein import Klein
from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from streampush.config import RestConfig
from streampush.errors import Refused
from streampush.protocol.codes import Code
from streampush.push.values import Principal, Published, PublishRequest
from streampush.rest import apple, devices, documents, fields, nodes
from streampush.rest.calls import Call, ChannelConverter, Operation, Route
from streampush.rest.events import EventStreams
from streampush.rest.http import ApiRequest, ApiSite
from streampush.rest.intake import MAX_CONNECTIONS, Intake
from streampush.rest.keys import Caller, Keys
from streampush.rest.ports import ApnsApi, NoApps, NodesApi, NoNodes, PushApi, Readiness, RestMetrics
from streampush.rest.problems import EVENTS, JSON, Answer, Problem, Stream, Streamed, json_answer, problem_of, unexpected
from streampush.rest.queries import parse_query
from streampush.rest.reports import OwnReports, Reports

ROUTES = (
    Route("POST", "/v1/publish", "publish", "publish"),
    Route("POST", "/v1/publish/batch", "publish_batch", "publish"),
    Route("DELETE", "/v1/messages/<string:id>", "recall", "publish"),
    *devices.ROUTES,
    Route("GET", "/v1/channels/<channel:name>", "describe_channel", "read"),
    Route("GET", "/v1/messages/<string:id>", "describe_message", "read"),
    Route("GET", "/v1/messages/<string:id>/events", "watch_message", "read"),
    *apple.ROUTES,
    *nodes.ROUTES,
    Route("GET", "/openapi.json", "openapi"),
    Route("GET", "/metrics", "metrics", "metrics"),
    Route("GET", "/healthz", "alive"),
    Route("GET", "/readyz", "ready"),
)


BATCH_AT_ONCE = 100
"""Messages of one channel in a batch that the store is given together: so many share a commit, and so many are still stored when
whoever sent the batch waits no more."""


class Api:
    """The operations. One instance serves all requests."""

    _log = Logger()

    def __init__(
        self,
        service: PushApi,
        reports: Reports,
        config: RestConfig,
        clock: IReactorTime,
        metrics: RestMetrics,
        keys: Keys,
        streams: EventStreams,
        apns: ApnsApi,
        nodes: NodesApi,
    ) -> None:
        self._service = service
        self._apns = apns
        self._nodes = nodes
        self._reports = reports
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._keys = keys
        self._streams = streams
        self._metrics_open = _is_loopback(config.address)
        self._openapi = files("streampush.rest").joinpath("openapi.json").read_bytes()

    def app(self) -> Klein:
        """A Klein application of its own with the routes of this API."""
        operations: dict[str, Operation] = {
            "publish": self._publish,
            "publish_batch": self._publish_batch,
            "recall": self._recall,
            **devices.DeviceOperations(self._service).operations(),
            "describe_channel": self._describe_channel,
            "describe_message": self._describe_message,
            "watch_message": self._watch_message,
            **apple.AppleOperations(self._service, self._apns, self._config.request_timeout).operations(),
            **nodes.NodeOperations(self._nodes).operations(),
            "openapi": self._describe_api,
            "metrics": self._show_metrics,
            "alive": self._alive,
            "ready": self._ready,
        }
        app = Klein()
        app.url_map.converters["channel"] = ChannelConverter
        app.url_map.merge_slashes = False  # no redirects: a path is right or unknown
        for route in ROUTES:
            endpoint = self._endpoint(route, operations[route.operation])
            app.route(route.path, methods=[route.method], endpoint=route.operation)(endpoint)
        app.handle_errors(HTTPException)(self._not_routed)
        return app

    # ------------------------------------------------------------------------------------------------------------ around them

    def _endpoint(self, route: Route, operation: Operation) -> Callable[..., Awaitable[bytes]]:
        async def endpoint(request: ApiRequest, **arguments: str) -> bytes:
            started = self._clock.seconds()
            answer = await self._answer(route, operation, request, arguments)
            stream: Stream | None = None
            if isinstance(answer, Streamed) and request.method != b"HEAD":
                try:
                    stream = answer.open(request)
                except Problem as problem:
                    answer = problem.answer()
            self._metrics.rest_request(answer.status, self._clock.seconds() - started)
            body = request.prepare(answer)
            if stream is not None:
                await stream.run()
            return body

        return endpoint

    async def _answer(self, route: Route, operation: Operation, request: ApiRequest, arguments: dict[str, str]) -> Answer:
        try:
            caller = self._authorise(route, request)
            query = parse_query(request.query(), route.query) if route.query else {}
            call = Call(request.body(), caller, arguments, query, request.texts)
            return await self._unless_too_late(call, operation)
        except Problem as problem:
            return problem.answer()
        except Refused as refused:
            return problem_of(refused).answer()
        except TimeoutError:
            detail = f"not done within {self._config.request_timeout:g} s; it may still be done"
            return Problem(503, detail, code=Code.OVERLOADED).answer()
        except CancelledError:  # the client is gone: nobody to answer
            raise
        except Exception:  # noqa: BLE001 - the owner of the request: logs it and answers
            self._log.failure("a request failed: {operation}", operation=route.operation)
            return unexpected().answer()

    def _authorise(self, route: Route, request: ApiRequest) -> Caller:
        if not route.scope or (route.operation == "metrics" and self._metrics_open):
            return Caller(Principal("nobody", ""), frozenset())
        caller = self._keys.caller(request.texts("Authorization"))
        caller.require(route.scope)
        return caller

    def _unless_too_late(self, call: Call, operation: Operation) -> Deferred[Answer]:
        """The answer, or TimeoutError; the operation itself is not interrupted, and fails into the log if nobody waits."""
        waiting: Deferred[Answer] = Deferred(lambda _: setattr(call, "given_up", True))

        def done(result: Answer | Failure) -> None:
            if not call.given_up:
                waiting.callback(result) if isinstance(result, Answer) else waiting.errback(result)
            elif isinstance(result, Failure) and not result.check(Problem, Refused):  # type: ignore[no-untyped-call]  # not annotated
                self._log.failure("a request failed after its client had gone", failure=result)

        Deferred.fromCoroutine(_run(operation, call)).addBoth(done)
        return waiting.addTimeout(self._config.request_timeout, self._clock)

    def _not_routed(self, request: IRequest, failure: Failure) -> bytes:
        assert isinstance(request, ApiRequest)
        error = failure.value
        if isinstance(error, MethodNotAllowed):
            allowed = ", ".join(sorted(error.valid_methods or ()))
            problem = Problem(405, f"the method must be one of {allowed}", headers={"Allow": allowed})
        else:
            problem = Problem(404, "there is nothing at this path")
        self._metrics.rest_request(problem.status, 0.0)
        return request.prepare(problem.answer())

    # ------------------------------------------------------------------------------------------------------------ operations

    async def _publish(self, call: Call) -> Answer:
        request = fields.with_key(fields.publish_request(fields.parse_object(call.body)), call.texts("Idempotency-Key"))
        return json_answer(documents.published(await self._service.publish(call.principal, request)))

    async def _publish_batch(self, call: Call) -> Answer:
        if call.texts("Idempotency-Key"):
            raise fields.bad("Idempotency-Key", "is for one message: in a batch each has a field idempotency_key")
        messages = fields.batch(fields.parse_object(call.body), self._config.max_batch)
        results: list[dict[str, Any]] = [{} for _ in messages]
        by_channel: dict[str, list[tuple[int, PublishRequest]]] = {}
        for index, message in enumerate(messages):
            try:
                request = fields.publish_request(message, f"messages[{index}].")
            except Problem as problem:
                results[index] = {"problem": problem.document()}
            else:
                by_channel.setdefault(request.channel, []).append((index, request))
        runs = [Deferred.fromCoroutine(self._publish_run(call, run, results)) for run in by_channel.values()]
        await gatherResults(runs, consumeErrors=True)
        return json_answer({"results": results})

    async def _publish_run(self, call: Call, run: list[tuple[int, PublishRequest]], results: list[dict[str, Any]]) -> None:
        """One channel's messages, in their order. Stops when nobody waits any more.

        What is asked of a store at once it does in the order in which it was asked, and stores together. The first message goes
        alone: a Redis that has no scripts yet, as another client may give it them meanwhile, does not keep to that.
        """
        await self._publish_one(call, *run[0], results)
        for first in range(1, len(run), BATCH_AT_ONCE):
            if call.given_up:
                return
            together = run[first : first + BATCH_AT_ONCE]
            await gatherResults([Deferred.fromCoroutine(self._publish_one(call, *one, results)) for one in together])

    async def _publish_one(self, call: Call, index: int, request: PublishRequest, results: list[dict[str, Any]]) -> None:
        try:
            results[index] = {"ok": documents.published(await self._published(call, request))}
        except Problem as problem:
            results[index] = {"problem": problem.document()}

    async def _published(self, call: Call, request: PublishRequest) -> Published:
        try:
            return await self._service.publish(call.principal, request)
        except Refused as refused:
            raise problem_of(refused) from refused
        except Exception as error:
            self._log.failure("a message of a batch failed")
            raise unexpected() from error

    async def _recall(self, call: Call) -> Answer:
        return json_answer(documents.recalled(await self._service.recall(call.principal, call.arguments["id"])))

    async def _describe_channel(self, call: Call) -> Answer:
        return json_answer(documents.channel(await self._service.describe_channel(call.arguments["name"])))

    async def _describe_message(self, call: Call) -> Answer:
        return json_answer(documents.message(await self._service.receipts.progress(call.arguments["id"])))

    async def _watch_message(self, call: Call) -> Answer:
        """The message is looked up first, so that an unknown one is an answer and no stream."""
        message_id, key = call.arguments["id"], call.principal.name
        await self._service.receipts.progress(message_id)
        headers = {"X-Accel-Buffering": "no"}  # asks a proxy in front to pass each event on at once
        return Streamed(200, b"", EVENTS, headers, open=lambda request: self._streams.open(request, message_id, key))

    async def _describe_api(self, call: Call) -> Answer:
        return Answer(200, self._openapi, JSON)

    async def _show_metrics(self, call: Call) -> Answer:
        return await self._reports.metrics()

    async def _alive(self, call: Call) -> Answer:
        return await self._reports.alive()

    async def _ready(self, call: Call) -> Answer:
        return await self._reports.ready()


async def _run(operation: Operation, call: Call) -> Answer:
    return await operation(call)


def _is_loopback(address: str) -> bool:
    """Whether only this machine can connect; a name other than localhost may be any machine's."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class Uncounted:
    """Metrics of nobody."""

    def rest_request(self, status: int, seconds: float) -> None:
        """Not counted."""

    def rest_refused_connection(self) -> None:
        """Not counted."""

    def receipts_told(self, milestone: str, number: int) -> None:
        """Not counted."""

    def event_streams(self, number: int) -> None:
        """Not counted."""


def make_site(
    service: PushApi,
    health: Readiness,
    metrics_registry: CollectorRegistry,
    config: RestConfig,
    clock: IReactorTime,
    metrics: RestMetrics | None = None,
    *,
    max_connections: int = MAX_CONNECTIONS,
    apns: ApnsApi | None = None,
    known_nodes: NodesApi | None = None,
    reports: Reports | None = None,
) -> ApiSite:
    """The factory for a plain or a TLS endpoint. `clock` is the reactor; `health` is asked with its seconds. `reports` answer for
    more than this process."""
    metrics = metrics or Uncounted()
    keys = Keys(config.keys)
    streams = EventStreams(service.receipts, config, clock, metrics)
    reports = reports or OwnReports(health, metrics_registry, clock.seconds)
    api = Api(service, reports, config, clock, metrics, keys, streams, apns or NoApps(), known_nodes or NoNodes())
    intake = Intake(keys, config.max_body, max_connections=max_connections)
    return ApiSite(api.app().resource(), intake, metrics, clock, config.request_timeout, streams)
