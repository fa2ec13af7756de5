"""Scripts: how they are put together, called by hash, and what their answers mean."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from streampush.errors import Refused, StoreUnavailable
from streampush.protocol.codes import Code
from streampush.store.redis.needed import FUNCTION, only_needed
from streampush.store.redis.scripts import PRELUDE, Script, ScriptFailed, Scripts, _whole, load_scripts
from tests.store.redis_world import RedisTestCase


def script(name: str, body: str) -> Script:
    return _whole(name, body, {})


class WholeTests(SynchronousTestCase):
    def test_libraries_come_before_what_needs_them_and_once(self) -> None:
        libraries = {"a": "--! needs c\nlocal a = 1", "b": "--! needs c a\nlocal b = 1", "c": "local c = 1"}
        whole = _whole("x", "--! needs b a\nreturn a + b", libraries)
        lines = [line for line in whole.text.removeprefix(PRELUDE).splitlines() if line.startswith(("local", "return"))]
        assert lines == ["local c = 1", "local a = 1", "local b = 1", "return a + b"]

    def test_a_library_that_needs_itself_is_a_fault(self) -> None:
        with pytest.raises(ScriptFailed):
            _whole("x", "--! needs a", {"a": "--! needs b", "b": "--! needs a"})

    def test_those_of_the_product_can_be_put_together(self) -> None:
        assert all(len(one.digest) == 40 for one in load_scripts().values())


class NeededTests(SynchronousTestCase):
    LIBRARY = """\
local a = {LIMIT = 1}

-- Of no use to others.
function a.one()
  if true then
    return a.two()
  end
end

function a.two()
  return 2
end

function a.three()
  return a.one()
end

a.last = a.two
"""

    def functions(self, library: str, body: str) -> list[str]:
        (text,) = only_needed([library], body)
        return [line.split("(")[0] for line in text.splitlines() if line.startswith("function")]

    def test_a_function_stays_if_the_script_calls_it_or_one_that_stays_does(self) -> None:
        assert self.functions(self.LIBRARY, "return a.three()") == ["function a.one", "function a.two", "function a.three"]
        assert self.functions(self.LIBRARY, "return a.one()") == ["function a.one", "function a.two"]

    def test_what_stands_outside_of_functions_stays_with_what_it_calls(self) -> None:
        (text,) = only_needed([self.LIBRARY], "return 1")
        assert "LIMIT = 1" in text
        assert "a.last = a.two" in text
        assert self.functions(self.LIBRARY, "return 1") == ["function a.two"]

    def test_every_function_of_the_product_begins_and_ends_at_the_margin(self) -> None:
        for library in (files("streampush.store.redis") / "lua" / "lib").iterdir():
            text = library.read_text("utf-8")
            assert len(FUNCTION.findall(text)) == len(re.findall(r"^\s*function \w+[.]", text, re.MULTILINE)), library.name


class RunTests(RedisTestCase):
    def scripts(self, **bodies: str) -> Scripts:
        return Scripts(self.link, "scripts", {name: script(name, body) for name, body in bodies.items()})

    def run_one(self, body: str, *arguments: object) -> Deferred[object]:
        return ensureDeferred(self.scripts(one=body).run("one", *arguments))

    async def test_arguments_and_answer_are_values(self) -> None:
        answer = await self.run_one("return pack({args, P, {1, {true, false}}})", 2**53, "é", b"\xff\x00", [1, [b"x"]], True)
        assert answer == [[2**53, "é".encode(), b"\xff\x00", [1, [b"x"]], True], b"{scripts}:", [1, [True, False]]]

    async def test_a_refusal_is_raised_as_one(self) -> None:
        with pytest.raises(Refused) as caught:
            await self.run_one("return refused(3007, 'the store is full')")
        assert (caught.value.code, caught.value.detail) == (Code.QUOTA_EXCEEDED, "the store is full")

    async def test_a_script_that_redis_has_forgotten_is_given_again(self) -> None:
        scripts = self.scripts(one="return pack({7})")
        assert await scripts.run("one") == [7]
        await self.link.command("SCRIPT", "FLUSH")
        assert await scripts.run("one") == [7]

    async def test_a_fault_of_a_script_names_it_and_no_value(self) -> None:
        with pytest.raises(ScriptFailed, match="script one") as caught:
            await self.run_one("local x = args[1] .. nil", "hidden")
        assert "hidden" not in str(caught.value)

    async def test_trouble_of_redis_is_no_fault_of_ours(self) -> None:
        for word in ("OOM command not allowed", "READONLY You can't write", "MISCONF Redis is configured"):
            with pytest.raises(StoreUnavailable):
                await self.run_one(f"return redis.error_reply('{word.replace(chr(39), '')}')")
