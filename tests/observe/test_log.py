from __future__ import annotations

import ast
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

import streampush
from streampush.config import LogConfig
from streampush.observe.log import MAX_FIELDS, MAX_TEXT, LineObserver, make_observer_factory

CANARY = "c4nary-value"
LEVELS = ("debug", "info", "warn", "error", "critical", "failure")


class Bench:
    """An observer over a buffer, its clock and a logger."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.out = io.StringIO()
        self.observer = make_observer_factory(LogConfig(**settings), self.out, self.clock)()
        self.log = Logger(namespace="streampush.test", observer=self.observer)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


def test_observer_is_what_twisted_asks_for() -> None:
    assert verifyObject(ILogObserver, Bench().observer)


def test_event_becomes_one_line_with_its_fields() -> None:
    bench = Bench()
    bench.log.warn("connection of {device} closed", device="phone-1", code=1005, age=2.5, clean=False, user=None)
    (line,) = bench.lines()
    time = line.pop("time")
    assert time.endswith("+00:00")
    assert line == {
        "level": "warn",
        "namespace": "streampush.test",
        "message": "connection of phone-1 closed",
        "event": "connection of {device} closed",
        "device": "phone-1",
        "code": 1005,
        "age": 2.5,
        "clean": False,
        "user": None,
    }


def test_time_is_iso_8601_utc() -> None:
    bench = Bench()
    bench.observer({"log_time": 1_700_000_000.25, "log_format": "x"})
    assert bench.lines()[0]["time"] == "2023-11-14T22:13:20.250+00:00"


@pytest.mark.parametrize(
    "name", ["token", "device_token", "key", "api_key", "client_secret", "password", "Authorization", "payload", "body", "cookie"]
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_field_that_is_named_like_a_secret_is_never_written(name: str, form: str) -> None:
    bench = Bench(format=form)
    bench.log.info("something with {" + name + "}", **{name: CANARY})
    assert bench.out.getvalue()
    assert CANARY not in bench.out.getvalue()


@pytest.mark.parametrize("value", [CANARY.encode(), bytearray(CANARY.encode()), [CANARY], {"a": CANARY}, (CANARY,)])
@pytest.mark.parametrize("form", ["json", "text"])
def test_bytes_and_collections_are_never_written(value: object, form: str) -> None:
    bench = Bench(format=form)
    bench.log.info("got {data}", data=value)
    assert bench.out.getvalue()
    assert CANARY not in bench.out.getvalue()


def test_number_that_json_does_not_have_is_left_out() -> None:
    bench = Bench()
    bench.log.info("measured", lag=float("inf"), other=1.0)
    (line,) = bench.lines()
    assert "lag" not in line
    assert line["other"] == 1.0


def test_field_cannot_replace_what_every_line_has() -> None:
    bench = Bench()
    bench.log.info("x", time="never", event="forged", message="false")
    (line,) = bench.lines()
    assert (line["event"], line["message"]) == ("x", "x")
    assert (line["_time"], line["_event"], line["_message"]) == ("never", "forged", "false")


def test_failure_gives_its_class_and_traceback() -> None:
    bench = Bench()
    try:
        raise KeyError("gone")
    except KeyError:
        bench.log.failure("it broke")
    (line,) = bench.lines()
    assert line["level"] == "critical"
    assert line["failure"] == "builtins.KeyError"
    assert "test_failure_gives_its_class_and_traceback" in line["traceback"]
    assert line["traceback"].rstrip().endswith("'gone'")


def test_event_of_the_old_log_is_written_with_its_text() -> None:
    bench = Bench()
    bench.observer({"log_format": "{log_text}", "log_text": "Starting factory", "log_namespace": "twisted"})
    assert bench.lines()[0]["event"] == "Starting factory"


def test_event_is_one_line_whatever_is_in_it() -> None:
    bench = Bench()
    bench.log.info("a\nb", device="x\r\ny\u2028z\ud800")
    (line,) = bench.lines()
    assert line["device"] == "x\r\ny\u2028z\ud800"


def test_long_values_and_many_fields_are_cut() -> None:
    bench = Bench()
    bench.log.info("x", a="y" * 10_000, **{f"f{number}": number for number in range(100)})
    (line,) = bench.lines()
    assert len(line["a"]) == MAX_TEXT
    assert len(line) == MAX_FIELDS + 5


def test_message_stands_behind_the_namespace() -> None:
    bench = Bench()
    bench.log.info("x", device="phone-1")
    assert list(bench.lines()[0]) == ["time", "level", "namespace", "message", "event", "device"]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ("got {value}.", {"value": object()}),
        ("got {value!r}.", {"value": [CANARY]}),
        ("got {value:.1f}.", {"value": {"a": CANARY}}),
        ("got {value.args[0]}.", {"value": ValueError(CANARY)}),
        ("got {value()}.", {"value": lambda: CANARY}),
        ("got {device_token}.", {"device_token": CANARY}),
    ],
)
def test_message_says_what_it_does_not_show(form: str, template: str, fields: dict[str, Any]) -> None:
    bench = Bench(format=form)
    bench.log.info(template, **fields)
    assert "got (not shown)." in bench.out.getvalue()
    assert CANARY not in bench.out.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_message_that_cannot_be_filled_in_shows_no_secret(form: str) -> None:
    bench = Bench(format=form)
    bench.log.info("got {absent} {device_token}", device_token=CANARY, code=1005)
    assert "1005" in bench.out.getvalue()
    assert CANARY not in bench.out.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_text_that_was_filled_in_before_the_redaction_is_not_used(form: str) -> None:
    bench = Bench(format=form)
    flattened = {"key!:": CANARY, "code!:": "1"}
    bench.observer({"log_format": "got {key} {code}", "log_flattened": flattened, "key": CANARY, "code": 2})
    assert "got (not shown) 2" in bench.out.getvalue()
    assert CANARY not in bench.out.getvalue()


def test_message_has_escapes_in_place_of_control_characters() -> None:
    bench = Bench()
    bench.log.info("name {name}", name="a\r\nb\x1b[2Jc\u2028d\ud800")
    assert bench.lines()[0]["message"] == "name a\\r\\nb\\x1b[2Jc\\u2028d\\ud800"


@pytest.mark.parametrize("odd", ["\n", "\r", "\x0b", "\x1b", "\x85", "\u2028", "\u202e", "\ud800"])
def test_text_form_keeps_an_event_in_one_line(odd: str) -> None:
    bench = Bench(format="text")
    bench.observer({"log_format": "from {name}", "name": f"a{odd}b", "log_system": f"c{odd}d"})
    assert bench.observer.lost == 0
    assert bench.out.getvalue().endswith("\n")
    assert bench.out.getvalue()[:-1].isprintable()


def test_text_form_marks_the_lines_of_a_traceback_and_keeps_its_text_in_one() -> None:
    bench = Bench(format="text")
    try:
        raise ValueError("a\rb\x1bc")
    except ValueError:
        bench.log.failure("it broke")
    first, *rest = bench.out.getvalue().splitlines()
    assert first.endswith("[streampush.test#critical] it broke")
    assert [line for line in rest if not line.startswith("\t")] == []
    assert rest[-1] == "\tbuiltins.ValueError: a\\rb\\x1bc"


@pytest.mark.parametrize("form", ["json", "text"])
def test_failure_of_the_old_log_has_its_traceback_once(form: str) -> None:
    bench = Bench(format=form)
    failure = Failure(ValueError("gone"))
    text = f"why it was\n{failure.getTraceback()}"
    bench.observer({"log_format": "{log_text}", "log_text": text, "isError": 1, "failure": failure, "why": "why it was"})
    assert "why it was" in bench.out.getvalue()
    assert bench.out.getvalue().count("ValueError: gone") == 1


def test_text_of_the_old_log_is_not_filled_in() -> None:
    bench = Bench()
    bench.observer({"log_format": "{log_text}", "log_text": "set {a, b}", "log_namespace": "twisted"})
    assert bench.lines()[0]["message"] == "set {a, b}"


@pytest.mark.parametrize("form", ["json", "text"])
def test_long_message_is_cut(form: str) -> None:
    bench = Bench(format=form)
    bench.log.info("{a}{a}", a="y" * MAX_TEXT)
    assert "y" * (MAX_TEXT - 3) + "..." in bench.out.getvalue()
    assert "y" * (MAX_TEXT + 1) not in bench.out.getvalue()


def test_lines_are_sampled_by_their_format_text_not_by_the_message() -> None:
    bench = Bench(sample_burst=2)
    for number in range(5):
        bench.log.info("number {number}", number=number)
    assert [line["message"] for line in bench.lines()] == ["number 0", "number 1"]


def test_event_without_text_is_no_line_in_text_form() -> None:
    bench = Bench(format="text")
    bench.observer({"log_format": ""})
    assert bench.out.getvalue() == ""


def test_text_form_is_twisteds_own() -> None:
    bench = Bench(format="text")
    bench.log.info("closed {device}", device="phone-1")
    assert bench.out.getvalue().rstrip().endswith("[streampush.test#info] closed phone-1")


def test_repeated_lines_are_withheld_after_the_burst_and_other_kinds_are_not() -> None:
    bench = Bench(sample_burst=2, sample_window=10.0)
    for number in range(5):
        bench.log.error("again", number=number)
    bench.log.error("something else")
    assert [line["event"] for line in bench.lines()] == ["again", "again", "something else"]


def test_withheld_lines_are_reported_once_when_the_window_ends() -> None:
    bench = Bench(sample_burst=2, sample_window=10.0)
    bench.observer.start()
    for _ in range(5):
        bench.log.info("again")
    bench.clock.advance(9.9)
    assert len(bench.lines()) == 2
    bench.clock.advance(0.1)
    bench.clock.advance(10.0)
    (report,) = bench.lines()[2:]
    assert (report["count"], report["of_namespace"], report["of_event"]) == (3, "streampush.test", "again")
    assert report["message"] == "3 more lines in the last 10.0 s of streampush.test: again"
    bench.observer.stop()


def test_first_lines_of_the_next_window_go_out_after_the_report() -> None:
    bench = Bench(sample_burst=1, sample_window=10.0)
    bench.log.info("again")
    bench.log.info("again")
    bench.clock.advance(10.0)
    bench.log.info("again", third=True)
    assert [line.get("count") for line in bench.lines()] == [None, 1, None]
    assert bench.lines()[-1]["third"] is True


def test_stop_reports_what_was_withheld_and_leaves_no_timer() -> None:
    bench = Bench(sample_burst=1, sample_window=10.0)
    bench.observer.start()
    bench.observer.start()
    bench.log.info("again")
    bench.log.info("again")
    bench.observer.stop()
    assert bench.lines()[-1]["count"] == 1
    assert bench.clock.getDelayedCalls() == []


def test_broken_stream_is_counted_and_never_raises() -> None:
    bench = Bench()
    bench.out.close()
    bench.log.info("x")
    assert bench.observer.lost == 1


def test_stream_that_logs_itself_makes_no_loop() -> None:
    class Talkative(io.StringIO):
        log: Logger

        def write(self, text: str) -> int:
            self.log.info("writing")
            return super().write(text)

    clock, out = Clock(), Talkative()
    observer = make_observer_factory(LogConfig(), out, clock)()
    assert isinstance(observer, LineObserver)
    out.log = Logger(observer=observer)
    out.log.info("x")
    assert len(out.getvalue().splitlines()) == 1


def test_lines_of_several_threads_do_not_mix() -> None:
    bench = Bench(sample_burst=10_000)

    def work(name: str) -> None:
        for number in range(200):
            bench.log.info("from a thread", name=name * 50, number=number)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.lines()) == 800


def test_no_line_of_the_product_has_a_field_that_is_not_shown() -> None:
    """A name that suggests a secret is left out, so that a line with one would say nothing at the worst moment."""
    hidden = []
    for path in sorted(Path(streampush.__file__).parent.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS):
                continue
            if "log" in ast.unparse(call.func.value).lower():
                hidden += [
                    f"{path.name}:{call.lineno}: {word.arg}" for word in call.keywords if word.arg and not _is_shown(word.arg)
                ]
    assert hidden == []


def _is_shown(name: str) -> bool:
    bench = Bench()
    bench.log.info("{" + name + "}", **{name: "shown"})
    return bool(bench.lines()[0]["message"] == "shown")


@pytest.mark.parametrize(("form", "begins"), [("json", '{"time":'), ("text", "n-1 ")])
def test_a_process_of_several_names_its_node_in_each_line(form: str, begins: str) -> None:
    out = io.StringIO()
    log = Logger(namespace="test", observer=make_observer_factory(LogConfig(format=form), out, Clock(), node="n-1")())
    log.info("a line")
    log.info("of another", node="n-2")
    first, second = out.getvalue().splitlines()
    assert first.startswith(begins)
    if form == "json":
        assert [json.loads(line)["node"] for line in (first, second)] == ["n-1", "n-2"]
