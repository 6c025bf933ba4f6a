"""Messages as people read them, and an operator's own templates."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from chrono_backups.notifications.rendering import Renderer, age, check_templates
from chrono_backups_tests.notifications.messages import NOW, every_message, message, nasty_message


def test_every_message_says_what_it_must() -> None:
    for one in every_message():
        shown = Renderer().render(one, NOW)
        assert shown.subject.startswith("[Chrono, production] ") and "\n" not in shown.subject
        labels = [label for label, _ in shown.facts]
        wanted = ["Backup", "Run", "Where"]
        if one.incident:
            wanted += ["Since", "Seen", "Still safe", "Last proven"] + (
                ["What to do"] if one.state != "resolved" else []
            )
        assert set(wanted) <= set(labels), one.name
        for text in (shown.text, shown.html):
            assert one.headline.partition(":")[0] in text
            assert "chrono-backups" in text
        assert one.what in shown.text and one.what in shown.chat


@pytest.mark.parametrize(
    ("state", "headline"),
    [
        ("opened", "Backup failed: full backup"),
        ("worse", "Backup failed: full backup"),
        ("reminder", "Still: backup failed: full backup"),
        ("resolved", "Resolved: full backup: backups work again"),
    ],
)
def test_headlines(state: str, headline: str) -> None:
    assert message(state).headline == headline  # type: ignore[arg-type]


def test_with_no_backup_it_says_that_nothing_is_safe_and_when_the_knowledge_is_old() -> None:
    from chrono_backups.notifications.standing import Standing

    facts = dict(Renderer().render(message(standing=Standing(NOW)), NOW).facts)
    assert facts["Still safe"] == "nothing: there is no complete backup"
    old = Standing(NOW - timedelta(hours=3), "full_20260301_020000", NOW - timedelta(hours=10))
    facts = dict(Renderer().render(message(standing=old), NOW).facts)
    assert facts["Still safe"].endswith("as of 2026-03-01 09:00 UTC, when the repository could be read last")
    assert facts["Last proven"] == "never, by a drill or a full verification"
    assert "Still safe" not in dict(Renderer().render(message(standing=None), NOW).facts)


def test_html_is_escaped() -> None:
    html = Renderer().render(nasty_message(), NOW).html
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "{{ 7*7 }}" in html, "what is inside a message is no template"


class TestOverride:
    def test_the_most_particular_template_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "message.txt").write_text("ours: {{ headline }}")
        (tmp_path / "backup-failed.txt").write_text("very much ours: {{ message.what }} {{ moment(message.since) }}")
        renderer = Renderer(tmp_path)
        assert renderer.render(message(), NOW).text.startswith("very much ours: The full backup failed")
        assert renderer.render(message(code="wal-gap"), NOW).text == "ours: Gap in the WAL: full backup"
        assert "<html" in renderer.render(message(), NOW).html
        assert renderer.faults == {}

    def test_it_may_extend_the_built_in_one(self, tmp_path: Path) -> None:
        (tmp_path / "wal-gap.html").write_text(
            "{% extends 'message.html' %}{% block what %}<b>Runbook 7.</b> {{ message.what }}{% endblock %}"
        )
        html = Renderer(tmp_path).render(message(code="wal-gap", what="<lost>"), NOW).html
        assert "<b>Runbook 7.</b> &lt;lost&gt;" in html and "Still safe" in html

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("{{ message.nonsense }}", "nonsense"),
            ("{% if %}", "(line 1)"),
            ("{{ message.__class__.__mro__ }}", "unsafe"),
            ("{% for a in range(99999) %}{{ message.what }}{% endfor %}", "200,000 characters"),
            ("{% include 'gone.txt' %}", "gone.txt"),
        ],
    )
    def test_one_that_fails_is_reported_and_the_built_in_one_used(self, tmp_path: Path, text: str, why: str) -> None:
        (tmp_path / "message.txt").write_text(text)
        renderer = Renderer(tmp_path)
        assert "The full backup failed" in renderer.render(message(), NOW).text
        assert why in renderer.faults["message.txt"]
        if "range" in text:
            return  # for each event and state it would take seconds
        (finding,) = check_templates(tmp_path, NOW)
        assert (finding.code, finding.subject) == ("template-broken", str(tmp_path / "message.txt"))

    def test_all_of_it_is_checked(self, tmp_path: Path) -> None:
        assert check_templates(None, NOW) == []
        (finding,) = check_templates(tmp_path / "nowhere", NOW)
        assert "is no directory" in finding.message
        (tmp_path / "backup-faild.txt").write_text("x")
        (tmp_path / "_parts.txt").write_text("x")
        (tmp_path / "readme.rst").write_text("x")
        (finding,) = check_templates(tmp_path, NOW)
        assert (finding.code, finding.severity) == ("template-unused", "warning")


def test_ages() -> None:
    spans = [5, 65, 3600, 3660 * 3, 49 * 3600, 9 * 86400]
    assert [age(timedelta(seconds=span)) for span in spans] == ["5 s", "1 min", "1 h", "3 h 3 min", "2 days", "9 days"]
