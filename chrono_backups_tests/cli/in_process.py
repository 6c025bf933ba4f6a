"""The program run on a site in the tests' own process: for those that need many runs and not a fresh one each."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from chrono_backups.cli.main import main
from chrono_backups_tests.cli.conftest import KEY, OTHER_KEY, Ran, Site, environment


class SiteInProcess(Site):
    """A site whose runs share this process: SDKs are imported once."""

    def run(self, *words: str | bytes, code: int | None = 0, **settings: str) -> Ran:
        """Run the program; it must end with ``code``."""
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
        out, err = streams
        before = Path.cwd()
        os.chdir(self.root)
        try:
            with (
                mock.patch.dict(os.environ, environment({**self.settings, **settings}), clear=True),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                ended = main([os.fsdecode(word) for word in words])
        finally:
            os.chdir(before)
        printed, told = (stream.buffer.getvalue() for stream in streams)
        ran = Ran(ended, printed, told.decode())
        if code is not None:
            assert ran.code == code, f"{words}: exit code {ran.code}\n{ran.text}\n{ran.err}"
        assert "Traceback" not in ran.err or "--debug" in words, ran.err
        for secret in (KEY, OTHER_KEY):
            assert secret not in ran.err
        return ran
