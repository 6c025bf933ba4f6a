"""Email, to a real mail server of the tests' own: plain, STARTTLS, TLS from the first byte, with a login."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chrono_backups.clock import FrozenClock
from chrono_backups.errors import ChannelRefused, ChannelUnavailable, MessageRejected
from chrono_backups.notifications.email import EmailNotifier
from chrono_backups.notifications.rendering import Renderer
from chrono_backups.notifications.settings import EmailSettings
from chrono_backups_tests.contracts.notifier_contract import CANARY, NotifierContract
from chrono_backups_tests.notifications.messages import NOW, message
from chrono_backups_tests.servers.receivers import Mailbox, certificate, mailbox

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

TO = ("admin@company.com", "devops@company.com")


def notifier_for(port: int, **more: Any) -> EmailNotifier:
    settings = EmailSettings(
        enabled=True,
        recipients=TO,
        sender="Chrono <backups@company.com>",
        smtp_host="127.0.0.1",
        smtp_port=port,
        **{"smtp_use_tls": False, **more},
    )
    return EmailNotifier(settings, Renderer(), FrozenClock(NOW))


class MailEnd:
    """A mail server as the contract sees it."""

    def __init__(self, box: Mailbox) -> None:
        self.box = box

    def received(self) -> int:
        return len(self.box.mails)

    def refuse(self, how: str) -> None:
        if how == "busy":
            self.box.busy = "451 try again later"
        elif how == "hostile":
            self.box.busy = f"554 what is {CANARY}?"
        else:
            self.box.refuse = dict.fromkeys(TO, "550 who is that?")


class TestEmail(NotifierContract):
    @pytest.fixture
    def box(self) -> Iterator[Mailbox]:
        with mailbox(login=("me", CANARY)) as running:
            yield running

    @pytest.fixture
    def end(self, box: Mailbox) -> MailEnd:
        return MailEnd(box)

    @pytest.fixture
    def notifier(self, box: Mailbox) -> EmailNotifier:
        return notifier_for(box.port, smtp_username="me", smtp_password=SecretStr(CANARY))

    @pytest.fixture
    def unreachable(self) -> EmailNotifier:
        return notifier_for(1, smtp_username="me", smtp_password=SecretStr(CANARY))

    def test_it_says_everything_as_text_and_as_html(self, notifier: EmailNotifier, box: Mailbox) -> None:
        notifier.send(message(link="https://dagster.example.com/runs/1", backup_id="full_20260301_110000"))
        (mail,) = box.mails
        assert box.recipients == [list(TO)]
        assert mail["Subject"] == "[Chrono, production] Backup failed: full backup"
        assert (mail["From"], mail["To"]) == ("Chrono <backups@company.com>", ", ".join(TO))
        assert mail["Auto-Submitted"] == "auto-generated"
        text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
        assert text is not None and html is not None
        for part in ("local is full", "full_20260301_110000", "Make room.", "2026-03-01 10:00 UTC (2 h ago)",
                     "full_20260301_020000: all up to 2026-03-01 02:00 UTC", "full_20260222_020000, by a drill",
                     "https://dagster.example.com/runs/1", "Chrono, production (backup-1)"):  # fmt: skip
            assert part in text.get_content(), part
            assert part in html.get_content(), part

    def test_one_incident_is_one_thread_and_a_repeated_mail_is_the_same(
        self, notifier: EmailNotifier, box: Mailbox
    ) -> None:
        for state in ("opened", "opened", "resolved"):
            notifier.send(message(state))
        first, again, last = box.mails
        assert first["Message-ID"] == again["Message-ID"]
        assert first["References"] == last["References"]
        assert len({mail["Message-ID"] for mail in box.mails}) == 1, "the incident's numbers make the difference"

    def test_a_name_can_not_add_headers(self, notifier: EmailNotifier, box: Mailbox) -> None:
        notifier.send(message(subject="x\r\nBcc: thief@example.com"))
        (mail,) = box.mails
        assert "Bcc" not in mail
        assert box.recipients == [list(TO)]

    def test_a_wrong_password_is_told_without_it(self, box: Mailbox) -> None:
        notifier = notifier_for(box.port, smtp_username="me", smtp_password=SecretStr(CANARY + "x"))
        with pytest.raises(ChannelRefused, match="refused the login") as caught:
            notifier.send(message())
        assert CANARY not in f"{caught.value!r}{caught.value.__cause__}{caught.value.__context__}"
        assert "BACKUP_EMAIL_SMTP_PASSWORD" in caught.value.hint

    def test_one_recipient_that_is_refused_costs_the_others_nothing(
        self, notifier: EmailNotifier, box: Mailbox
    ) -> None:
        box.refuse = {TO[1]: "550 no such user"}
        assert notifier.send(message()) == f"the mail server does not take mail for {TO[1]} (550)"
        assert box.recipients == [[TO[0]]]

    def test_a_mail_that_is_not_taken_is_no_fault_of_the_channel(self, notifier: EmailNotifier, box: Mailbox) -> None:
        box.busy = "554 this is spam"
        with pytest.raises(MessageRejected, match=r"\(554\)"):
            notifier.send(message())


class TestEncryption:
    def test_starttls_and_tls_from_the_first_byte(self, tmp_path: Path) -> None:
        tls, trusted = certificate(tmp_path)
        for implicit in (False, True):
            with mailbox(tls=tls, implicit=implicit, login=("me", CANARY)) as box:
                kind = "implicit" if implicit else "starttls"
                notifier = notifier_for(
                    box.port, smtp_use_tls=True, smtp_tls=kind, smtp_ca_file=trusted,
                    smtp_username="me", smtp_password=SecretStr(CANARY),
                )  # fmt: skip
                notifier.send(message())
                assert box.encrypted == [True]
                assert box.logins == [("me", CANARY)]

    def test_a_server_that_nobody_vouches_for_gets_nothing(self, tmp_path: Path) -> None:
        tls, _ = certificate(tmp_path)
        for implicit in (False, True):
            with mailbox(tls=tls, implicit=implicit, login=("me", CANARY)) as box:
                kind = "implicit" if implicit else "starttls"
                notifier = notifier_for(
                    box.port, smtp_use_tls=True, smtp_tls=kind, smtp_username="me", smtp_password=SecretStr(CANARY)
                )
                with pytest.raises(ChannelRefused, match="not trusted") as caught:
                    notifier.send(message())
                assert "BACKUP_EMAIL_SMTP_CA_FILE" in caught.value.hint
                assert box.logins == []

    def test_a_server_without_starttls_gets_no_password(self) -> None:
        with mailbox(login=("me", CANARY)) as box:
            notifier = notifier_for(box.port, smtp_use_tls=True, smtp_username="me", smtp_password=SecretStr(CANARY))
            with pytest.raises(ChannelRefused, match="does not offer STARTTLS"):
                notifier.send(message())
            assert box.logins == []

    def test_the_port_says_which(self) -> None:
        assert EmailSettings(smtp_port=465).encryption == "implicit"
        assert EmailSettings(smtp_port=587).encryption == EmailSettings(smtp_port=25).encryption == "starttls"
        assert EmailSettings(smtp_port=25, smtp_use_tls=False).encryption == "none"

    def test_tls_where_none_is_spoken_is_a_clear_mistake(self) -> None:
        with mailbox() as box:
            notifier = notifier_for(box.port, smtp_use_tls=True, smtp_tls="implicit")
            with pytest.raises((ChannelRefused, ChannelUnavailable)) as caught:
                notifier.send(message())
            assert "BACKUP_EMAIL_SMTP_TLS" in caught.value.hint
