"""What the history pages make of text from strangers, of bodies, of secrets, and of what an address says."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import time
from types import SimpleNamespace

import pytest
from markupsafe import Markup

from flask_contenthub_webhook.contrib.dashboard.bodies import MOST_READ, hex_dump, show_body
from flask_contenthub_webhook.contrib.dashboard.curl import curl_command
from flask_contenthub_webhook.contrib.dashboard.marks import marked
from flask_contenthub_webhook.core.redaction import redacted, redacted_url, visible

SHOWN_AT_MOST = 64 * 1024


class TestVisible:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("plain, 键 and 🚀", "plain, 键 and 🚀"),
            ("\0\a\x1b[31m", "␀␇␛[31m"),
            ("a\tb\nc\rd\x7f", "a␉b␊c␍d␡"),
            ("\x85\x9b", "⟨U+0085⟩⟨U+009B⟩"),
            ("evil\u202egnp.exe", "evil⟨U+202E⟩gnp.exe"),
            ("\u2066\u2069\u200e\u061c", "⟨U+2066⟩⟨U+2069⟩⟨U+200E⟩⟨U+061C⟩"),
            ("zero\u200bwidth\ufeff\u2028", "zero⟨U+200B⟩width⟨U+FEFF⟩⟨U+2028⟩"),
            ("half \ud800 and \U000e0041", "half ⟨U+D800⟩ and ⟨U+E0041⟩"),
            ("👨\u200d👩\u200d👧 and می\u200cخواهم", "👨\u200d👩\u200d👧 and می\u200cخواهم"),
        ],
    )
    def test_what_could_not_be_seen_has_a_sign(self, text, shown):
        assert visible(text) == shown

    def test_lines_may_be_left_as_they_are(self):
        assert visible("a\tb\n\0", lines=True) == "a\tb\n␀"

    def test_in_a_body_signs_are_set_apart_and_markup_is_escaped(self):
        assert marked('<b>"\0\x01"</b>\n␀') == "&lt;b&gt;&#34;<mark>␀␁</mark>&#34;&lt;/b&gt;\n␀"

    def test_every_character_can_be_sent(self):
        everything = "".join(map(chr, [*range(0x3000), *range(0xD800, 0xE000), *range(0xFFF0, 0x10010)]))

        assert visible(everything).encode()
        assert str(marked(everything)).encode()

    def test_a_dump_has_both_views(self):
        assert hex_dump(b"\x00\x01GET <b>\xff" + b"x" * 8).splitlines() == [
            "00000000  00 01 47 45 54 20 3c 62 3e ff 78 78 78 78 78 78  ..GET <b>.xxxxxx",
            "00000010  78 78                                            xx",
        ]


def text_of(html):
    """What a reader sees, and copies."""
    return Markup(re.sub("<[^>]+>", "", html)).unescape()


def text_kept(html):
    """The same with its folds."""
    return Markup(re.sub("</?span[^>]*>", "", html)).unescape()


class TestBodies:
    def show(self, body: bytes):
        return show_body(body[:MOST_READ], len(body))

    def test_json_is_set_out_over_lines(self):
        shown = self.show(b'{"a": {"b":[1, 2,{}],"c" :[]},"d":"x, {y}: [z]"}')

        assert shown.kind == "JSON"
        assert text_of(shown.html) == (
            '{\n  "a": {\n    "b": [\n      1,\n      2,\n      {}\n    ],\n    "c": []\n  },\n  "d": "x, {y}: [z]"\n}'
        )

    def test_names_strings_and_other_values_of_json_have_colours(self):
        shown = self.show(b'{"a": "x: y,", "b": -1.5, "c": [null]}').html

        assert '<span class="j-name">&#34;a&#34;</span>: <span class="j-string">&#34;x: y,&#34;</span>,' in shown
        assert '<span class="j-literal">-1.5</span>,' in shown
        assert '<span class="j-literal">null</span>' in shown

    def test_three_levels_of_json_fold_if_they_hold_more_than_a_line(self):
        shown = self.show(b'{"a": {"b": {"c": {"d": 1, "e": 2}, "f": 3}, "g": [1]}, "h": [1]}').html

        assert re.findall(r"<summary> *(.*?)\n?</summary>", text_kept(shown)) == ["{", '"a": {', '"b": {']
        assert shown.count('<details class="fold" open>') == shown.count("</details>") == 3

    def test_what_is_cut_within_folds_closes_them(self):
        shown = self.show(b'{"a": {"b": [' + b'"x", ' * 30_000 + b"1]}}").html

        assert shown.count('<details class="fold" open>') == shown.count("</details>") == 3

    def test_it_says_what_was_sent_to_the_last_digit(self):
        numbers = ["1e999", "0.1000000000000000055", "-0", "12345678901234567890123", "9" * 5000]
        shown = self.show(f'{{"a": [{", ".join(numbers)}], "a": "twice"}}'.encode()).html

        assert all(number in shown for number in numbers)
        assert shown.count("&#34;a&#34;") == 2

    def test_characters_that_json_had_escaped_can_be_read_and_stay_harmless(self):
        shown = self.show(json.dumps({"t": '正文 <b> \u202e \ud800 \x00 "\\'}).encode()).html

        assert "正文 &lt;b&gt; <mark>⟨U+202E⟩</mark> <mark>⟨U+D800⟩</mark> \\u0000 \\&#34;\\\\" in shown

    @pytest.mark.parametrize(
        "body", [b'{"a": 1', b"[1,]", b'{"a": "\x00"}', b"text", b"12", b'"text"', b"\xef\xbb\xbf{}"]
    )
    def test_what_is_no_json_stays_as_it_came(self, body):
        shown = self.show(body)

        assert shown.kind == "text"
        assert shown.html.striptags() == visible(body.decode(), lines=True)

    def test_what_is_no_text_is_shown_in_hex(self):
        shown = self.show(b"\xff\xfe\x00GIF" * 2000)

        assert (shown.kind, shown.size, shown.is_cut) == ("bytes", 12000, True)
        assert shown.html.startswith("00000000  ff fe 00 47 49 46")
        assert len(shown.html.splitlines()) == 256

    @pytest.mark.parametrize(
        "body",
        [
            b"x" * 5_000_000,
            "键".encode() * 1_700_000,
            b"\0" * 5_000_000,
            b"[" * 200_000,
            b"[" * 900 + b"]" * 900,
            b"[" * 100_000 + b"]" * 100_000,
            b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
            b"[" + b"1," * 100_000 + b"1]",
            b"[" + b"9" * 250_000 + b"]",
            b'["' + b'\\"' * 120_000 + b'"]',
            b'["' + b"\\u0000" * 40_000 + b'"]',
        ],
        ids=["text", "characters", "NUL", "open", "deep", "deeper", "objects", "items", "number", "quotes", "escapes"],
    )
    def test_of_a_huge_one_the_beginning_is_shown_and_quickly(self, body):
        began = time.process_time()
        shown = self.show(body)

        assert time.process_time() - began < 5  # some milliseconds; what grows with the body would take minutes
        assert shown.size == len(body)
        assert len(shown.html.striptags().replace("&#34;", '"')) <= SHOWN_AT_MOST
        assert shown.is_cut

    def test_a_character_that_is_cut_in_two_does_not_make_it_bytes(self):
        for extra in range(4):
            assert self.show(b"x" * extra + "🚀".encode() * 100_000).kind == "text"


SETTINGS = SimpleNamespace(callback_base_url="https://hub.example/", url_prefix="/api/v1/content")
ROW = {"id": 7, "task_id": "t-1", "attempt": 2, "scheme": "url", "headers": {"Content-Type": "application/json"}}


class TestCurl:
    def command(self, body: bytes = b"{}", size: int | None = None, **row: object) -> list[str]:
        text = curl_command(SETTINGS, {**ROW, **row}, body, len(body) if size is None else size)
        return shlex.split(text.replace("\\\n", ""))

    def test_it_sends_the_body_to_the_tasks_callback_without_the_token(self):
        assert self.command() == [
            *("curl", "https://hub.example/api/v1/content/callback/t-1?attempt=2&token=REDACTED"),
            *("-H", "Content-Type: application/json", "--data-raw", "{}"),
        ]

    def test_a_hostile_task_id_stays_one_argument(self):
        assert self.command(task_id="a/../$(id)' ;[1-9]{x}&#", scheme=None, attempt=None)[1] == (
            "https://hub.example/api/v1/content/callback/a%2F..%2F%24%28id%29%27%20%3B%5B1-9%5D%7Bx%7D%26%23"
        )

    def test_a_body_of_printable_characters_is_quoted(self):
        body = b'it\'s $(reboot) `id` \\ "x"\n@/etc/passwd'

        assert self.command(body)[-2:] == ["--data-raw", body.decode()]

    @pytest.mark.parametrize("body", [b"\x1b[201~rm -rf\n", "键".encode(), "\u202e".encode(), b"\0", b"\xff", b"a\rb"])
    def test_what_a_terminal_might_act_on_goes_as_base64(self, body):
        import base64

        assert self.command(body)[:8] == [
            "printf",
            "%s",
            base64.b64encode(body).decode(),
            "|",
            "base64",
            "-d",
            "|",
            "curl",
        ]
        assert self.command(body)[-2:] == ["--data-binary", "@-"]

    def test_a_large_body_is_downloaded_first(self):
        assert self.command(b"x" * 40_000)[-2:] == ["--data-binary", "@delivery-7.bin"]
        assert self.command(b"x" * 100, 200)[-2:] == ["--data-binary", "@delivery-7.bin"]

    def test_headers_that_curl_sets_or_that_cannot_be_typed_are_left_out(self):
        headers = {
            "Host": "hub",
            "Content-Length": "2",
            "@/etc/passwd": "x",
            "X Y": "z",
            "X-Control": "a\x1bb",
            "X-Line": "a\nb",
            "X-Empty": "",
            "X-Quote": "it's",
            "X-Webhook-Signature": "[redacted]",
        }
        arguments = self.command(headers=headers)

        sent = [value for flag, value in itertools.pairwise(arguments) if flag == "-H"]
        assert sent == ["X-Empty;", "X-Quote: it's", "X-Webhook-Signature: [redacted]"]


class TestRedaction:
    def test_values_of_secret_names_are_hidden_at_any_depth(self):
        value = {
            "api_key": "1",
            "Authorization": "2",
            "nested": [{"webhook_secret": ["3"], "style": "calm"}],
            "url": "https://user:4@x.example/p?token=5&page=6#7",
            "keywords": ["tea"],
        }

        assert redacted(value) == {
            "api_key": "[redacted]",
            "Authorization": "[redacted]",
            "nested": [{"webhook_secret": "[redacted]", "style": "calm"}],
            "url": "https://user:***@x.example/p?token=***&page=6",
            "keywords": ["tea"],
        }

    def test_urls_that_are_none_are_hidden(self):
        assert redacted_url("http://[not-an-address/?token=1") == "[redacted]"
        assert (
            redacted_url("https://x.example/hook?key=1&API_KEY=2&a=b")
            == "https://x.example/hook?key=***&API_KEY=***&a=b"
        )

    def test_deep_values_end(self):
        deep: dict[str, object] = {}
        for _ in range(500):
            deep = {"a": deep}

        assert "…" in str(redacted(deep))
