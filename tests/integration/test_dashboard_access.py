"""Who may see the history pages, what protects their forms, and what browsers are told to forbid."""

from __future__ import annotations

import logging

import pytest
from flask import Flask, abort, g, redirect, request

from flask_contenthub_webhook.contrib.dashboard import create_dashboard
from tests.support.host import completed
from tests.support.pages import AT, Visitor, mount, open_to_all, parsed

PAGES = (
    *("/", "/deliveries", "/deliveries/new?after=0", "/deliveries/1", "/deliveries/1/body", "/task?id=1", "/forwards"),
    *("/replay", "/replay?verdict=dead", "/find?q=1", "/assets/dashboard.css"),
)


@pytest.fixture
def visitor(hosts, sqlite_url):
    """A visitor of pages that everybody may see, with one delivery to replay, number 1: the handlers failed at it."""
    visitor = Visitor(hosts(sqlite_url, after=open_to_all))
    visitor.host.publisher.broken = True
    task_id = visitor.host.add_task()
    visitor.host.post(task_id, completed(task_id))
    visitor.host.publisher.broken = False
    return visitor


class TestPermission:
    def test_without_a_callable_every_page_is_refused_and_the_log_says_what_to_set(self, hosts, sqlite_url, caplog):
        visitor = Visitor(hosts(sqlite_url, after=mount(None)))

        assert {visitor.get(path).status_code for path in PAGES} == {403}
        assert visitor.client.post(f"{AT}/deliveries/1/replay").status_code == 403
        assert visitor.client.post(f"{AT}/replay").status_code == 403
        assert "create_dashboard(permission=...)" in caplog.text

    def test_without_a_callable_the_pages_are_open_in_debug_mode(self, hosts, sqlite_url):
        visitor = Visitor(hosts(sqlite_url, after=mount(None)))
        visitor.host.app.debug = True

        assert visitor.get("/").status_code == 200

    def test_the_callable_is_asked_about_every_request_in_its_context(self, hosts, sqlite_url):
        asked = []

        def permission():
            asked.append(request.path)
            return g.pop("nobody", None) is None and request.headers.get("X-User") == "admin"

        visitor = Visitor(hosts(sqlite_url, after=mount(permission)))

        assert [visitor.get(path).status_code for path in PAGES] == [403] * len(PAGES)
        assert visitor.get("/deliveries", headers={"X-User": "admin"}).status_code == 200
        assert len(asked) == len(PAGES) + 1

    @pytest.mark.parametrize("answer", [None, 0, "", "yes", 1, redirect("/login")], ids=repr)
    def test_only_true_lets_a_request_pass(self, hosts, sqlite_url, answer, caplog):
        visitor = Visitor(hosts(sqlite_url, after=mount(lambda: answer)))

        assert visitor.get("/").status_code == 403
        assert ("must return True or False" in caplog.text) == bool(answer)

    def test_it_may_answer_by_itself(self, hosts, sqlite_url):
        away = Visitor(hosts(sqlite_url, after=mount(lambda: abort(redirect("/login")))))
        unknown = Visitor(hosts(sqlite_url, after=mount(lambda: abort(401))))

        assert (away.get("/").status_code, away.get("/").location) == (302, "/login")
        assert unknown.get("/").status_code == 401

    def test_whoever_is_refused_learns_nothing(self, hosts, sqlite_url):
        refused = Visitor(hosts(sqlite_url, after=mount(lambda: False))).get("/deliveries/1")

        assert parsed(refused.text).links == [("#main", "Skip to the content")]
        assert "Set-Cookie" not in refused.headers

    def test_two_of_them_can_be_mounted(self, hosts, sqlite_url):
        def both(app: Flask) -> None:
            app.register_blueprint(create_dashboard(permission=lambda: True), url_prefix=AT)
            app.register_blueprint(create_dashboard(permission=lambda: False, name="other"), url_prefix="/other")

        visitor = Visitor(hosts(sqlite_url, after=both))

        assert (visitor.get("/").status_code, visitor.client.get("/other/").status_code) == (200, 403)
        assert all(target.startswith((AT, "#")) for target, _ in visitor.see("/").links)


class TestHeaders:
    def test_every_answer_forbids_what_the_pages_do_not_need(self, visitor):
        for path in (*PAGES, "/deliveries/999", "/deliveries?verdict=nonsense"):
            headers = visitor.get(path).headers

            assert headers["Content-Security-Policy"] == (
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
                "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
            )
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "same-origin"
            assert headers["Cache-Control"] == ("private, max-age=3600" if "assets" in path else "no-store")

    def test_a_refusal_has_them_too(self, hosts, sqlite_url):
        refused = Visitor(hosts(sqlite_url, after=mount(None))).get("/assets/dashboard.css")

        assert "default-src 'none'" in refused.headers["Content-Security-Policy"]
        assert refused.headers["Cache-Control"] == "no-store"

    def test_the_assets_are_there(self, visitor):
        assert visitor.get("/assets/dashboard.css").mimetype == "text/css"
        assert "javascript" in visitor.get("/assets/dashboard.js").mimetype
        assert visitor.get("/assets/icon.svg").mimetype == "image/svg+xml"


class TestForms:
    def replay(self, visitor, **options):
        return visitor.submit(visitor.see("/deliveries/1"), "replay", **options)

    def test_a_form_of_ours_is_taken(self, visitor):
        answer = self.replay(visitor, headers={"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"})

        assert answer.status_code == 303
        assert visitor.host.delivery(1).verdict == "replayed"

    @pytest.mark.parametrize("path", ["/deliveries/1/replay", "/replay"])
    def test_without_its_token_it_is_refused(self, visitor, path):
        visitor.see("/deliveries/1")
        for fields in ({}, {"dashboard_token": ""}, {"dashboard_token": "é\0"}, {"dashboard_token": "a.b.c"}):
            assert visitor.client.post(AT + path, data=fields).status_code == 403

        assert visitor.host.delivery(1).verdict == "failed"

    def test_without_the_cookie_it_is_refused(self, visitor):
        page = visitor.see("/deliveries/1")
        visitor.client = visitor.host.app.test_client()

        assert visitor.submit(page, "replay").status_code == 403

    def test_with_the_token_of_another_browser_it_is_refused(self, visitor):
        other = Visitor(visitor.host).see("/deliveries/1")
        visitor.see("/deliveries/1")

        assert visitor.submit(other, "replay").status_code == 403

    def test_an_order_is_no_token_and_the_other_way_round(self, visitor):
        page = visitor.see("/replay?verdict=failed")
        form = next(form for form in page.forms if form.method == "post")
        order, token = form.fields["order"], form.fields["dashboard_token"]

        assert visitor.submit(page, "replay", fields={"dashboard_token": order}).status_code == 403
        assert visitor.submit(page, "replay", fields={"order": token}).status_code == 400
        assert visitor.host.delivery(1).verdict == "failed"

    def test_another_origin_is_refused(self, visitor):
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://localhost:8080"},
            {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "none"},
        ):
            answer = self.replay(visitor, headers=headers)

            assert answer.status_code == 403, headers
            assert "another site" in answer.text
        assert visitor.host.delivery(1).verdict == "failed"

    def test_behind_a_proxy_that_ends_tls_the_host_is_what_counts(self, visitor):
        assert self.replay(visitor, headers={"Origin": "https://localhost"}).status_code == 303

    def test_a_page_that_is_too_old_is_refused(self, visitor, monkeypatch):
        monkeypatch.setattr("flask_contenthub_webhook.contrib.dashboard.forms._MAX_AGE", -1)

        assert "too old" in self.replay(visitor).text

    def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(self, visitor):
        plain = visitor.get("/deliveries/1").headers["Set-Cookie"]
        secure = Visitor(visitor.host).get("/deliveries/1", base_url="https://localhost").headers["Set-Cookie"]

        assert plain.startswith("contenthub_dashboard=")
        assert "HttpOnly" in plain
        assert "SameSite=Lax" in plain
        assert secure.startswith("__Host-contenthub_dashboard=")
        assert "Secure" in secure
        assert "Set-Cookie" not in visitor.get("/deliveries/1").headers

    def test_pages_without_a_form_set_no_cookie(self, visitor):
        assert "Set-Cookie" not in visitor.get("/deliveries").headers

    def test_an_older_key_of_the_application_still_holds(self, visitor):
        page = visitor.see("/deliveries/1")
        visitor.host.app.config.update(SECRET_KEY="a new one", SECRET_KEY_FALLBACKS=["sessions"])

        assert visitor.submit(page, "replay").status_code == 303

    def test_without_a_secret_key_the_pages_only_show_and_say_why(self, hosts, sqlite_url):
        visitor = Visitor(hosts(sqlite_url, after=open_to_all, SECRET_KEY=...))
        task_id = visitor.host.add_task()
        visitor.host.post(task_id, completed(task_id))

        for path in ("/deliveries/1", "/replay?event=completed"):
            page = visitor.see(path)
            assert "SECRET_KEY" in page.text
            assert not [form for form in page.forms if form.method == "post"]
        assert visitor.client.post(f"{AT}/deliveries/1/replay").status_code == 403

    def test_where_the_host_uses_flask_wtf_its_token_goes_along(self, hosts, sqlite_url):
        from flask_wtf.csrf import CSRFProtect

        visitor = Visitor(hosts(sqlite_url, before=CSRFProtect, after=open_to_all))
        task_id = visitor.host.add_task()
        visitor.host.post(task_id, completed(task_id))
        page = visitor.see("/deliveries/1")

        assert visitor.submit(page, "replay", fields={"csrf_token": ""}).status_code == 400
        assert visitor.submit(page, "replay").status_code == 303


def test_pages_without_a_database_say_so(hosts, sqlite_url, caplog):
    visitor = Visitor(hosts(sqlite_url, after=open_to_all, create_tables=False))

    answer = visitor.get("/")

    assert answer.status_code == 503
    assert "The database did not answer" in answer.text
    assert "no such table" not in answer.text
    assert "A history page could not be read" in caplog.text
    caplog.set_level(logging.CRITICAL)
