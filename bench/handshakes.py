"""Server CPU of a mutual TLS 1.3 handshake, full and resumed: alone, and with the greeting that follows it.

"handshake": TCP connection, TLS handshake, orderly close. "connect": the same with the greeting and its answer in between,
which is what a reconnect costs. The naive server resumes nothing by Twisted's defaults; "naive with sessions" does.
"""

from __future__ import annotations

from functools import partial

from bench.arena import MILLI, Contender, arena, compare, options_of, subjects_of, take_turns
from bench.dialects import LoadError
from bench.report import NAIVE, OURS, Report, ratios
from bench.servers import NAIVE_SESSIONS


def connect(contender: Contender, count: int, *, greet: bool, resume: bool) -> float:
    """CPU seconds per connection. Raises LoadError if a session was resumed that should not, or the other way round."""

    def work() -> int:
        resumed = contender.load.call("handshakes", first=0, count=count, greet=greet, resume=resume)
        if resumed != (count if resume else 0):
            raise LoadError(f"{resumed} of {count} sessions were resumed at {contender.server.name}")
        return count

    return contender.server.cost(work)


def main(arguments: list[str] | None = None) -> None:
    sizes = (("--count", 300, "connections a round"),)
    options = options_of("handshakes", __doc__, 5, *sizes).parse_args(arguments)
    report = Report("handshakes")
    subjects = subjects_of(options)
    with arena(options.count) as ring:
        contenders = {subject: ring.enter(subject) for subject in subjects}
        if NAIVE in contenders:
            contenders[NAIVE_SESSIONS] = ring.enter(NAIVE_SESSIONS)
        for greet, figure in ((True, "connect"), (False, "handshake")):  # greetings first: they leave the sessions to resume
            full = {name: partial(connect, each, options.count, greet=greet, resume=False) for name, each in contenders.items()}
            resumed = {
                f"{name} again": partial(connect, each, options.count, greet=greet, resume=True)
                for name, each in contenders.items()
                if name != NAIVE
            }
            samples = take_turns(full | resumed, options.rounds, warm_up=True)
            first = {name: samples[name] for name in full}
            again = {name: samples[f"{name} again"] for name in full if name != NAIVE}
            compare(report, f"{figure} CPU, full", "ms", MILLI, first, count=options.count)
            compare(report, f"{figure} CPU, resumed", "ms", MILLI, again, count=options.count)
            for name, values in again.items():
                report.ratio(f"{figure} CPU, resumed to full", name, "full", ratios(values, first[name]), count=options.count)
            if len(contenders) > 2:
                fair = ((f"{figure} CPU, full", first), (f"{figure} CPU, resumed", again))
                for label, own in fair:
                    values = ratios(own[OURS], own[NAIVE_SESSIONS])
                    report.ratio(label, OURS, NAIVE_SESSIONS, values, count=options.count)
                resumed_to_full = ratios(again[OURS], first[NAIVE])
                report.ratio(f"{figure} CPU, resumed to naive full", OURS, NAIVE, resumed_to_full, count=options.count)


if __name__ == "__main__":
    main()
