"""The two streams: results on standard output, everything said meanwhile on standard error.

A reader that goes away (``… | head``) is no error: what follows is dropped in silence, the work goes on
and its exit code stays. Only what streams (``ls``, ``diff``, ``get``) asks ``reader_gone`` and stops.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from chrono_backups.cli.terminal.names import json_text, safe_message


class Output:
    """Standard output and standard error of one run."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.quiet = quiet
        self.reader_gone = False
        """True once standard output's reader has closed it."""
        self.redact: Callable[[str], str] = lambda text: text
        """Masks secrets in whatever goes to standard error or into an error document."""
        self.warned: Callable[[str], None] = lambda text: None
        """Hears every warning."""
        self.before_message: Callable[[], None] = lambda: None
        """Called before a line on standard error: the progress line makes way."""
        self._held: list[tuple[Any, list[str]]] | None = None
        self._document_done = False
        self._open_stream: DocumentStream | None = None

    # Standard output

    def show(self, document: Any, lines: Iterable[str]) -> None:
        """The result that was asked for: ``document`` with ``--json``, else ``lines``."""
        if self.json:
            self.document(document)
        else:
            self.lines(lines)

    def report(self, document: Any, lines: Iterable[str]) -> None:
        """What an action did: as ``show``, but ``--quiet`` leaves the lines out."""
        if self._held is not None:
            self._held.append((document, list(lines)))
        elif self.json or not self.quiet:
            self.show(document, lines)

    def hold(self) -> None:
        """From here on keep back what actions did, until ``release``: it is recorded before it is reported."""
        self._held = []

    def release(self) -> None:
        """Report what was kept back."""
        held, self._held = self._held or [], None
        for document, lines in held:
            self.report(document, lines)

    def lines(self, lines: Iterable[str]) -> None:
        """Text lines, safe for a terminal by their maker."""
        for line in lines:
            if self.reader_gone:
                return
            self.write((line + "\n").encode("utf-8", "backslashreplace"))
        self._flush()

    def document(self, value: Any) -> None:
        """The run's one JSON document."""
        if self._document_done:
            raise AssertionError("a run prints one JSON document")
        self._document_done = True
        self.write(_encoded(value, indent=2) + b"\n")
        self._flush()

    @contextmanager
    def stream(self, head: Mapping[str, Any], name: str) -> Iterator[DocumentStream]:
        """The run's one JSON document, an object of ``head`` and a list ``name`` that is written as it comes.

        Whatever ends the list early, the document is whole: an error becomes its member ``error``.
        """
        self._document_done = True
        stream = self._open_stream = DocumentStream(self, head, name)
        yield stream
        stream.end()
        self._open_stream = None

    @contextmanager
    def text_stream(self, head: Mapping[str, Any], name: str) -> Iterator[Callable[[bytes], None]]:
        """As ``stream``, but the last member is a string, given in parts that need no escaping."""
        self._document_done = True
        stream = self._open_stream = DocumentStream(self, head, name, brackets=(b'"', b'"'))
        yield self.write
        stream.end()
        self._open_stream = None

    def error_document(self, error: Mapping[str, Any]) -> None:
        """``{"error": …}``, or that member of the document that is under way."""
        if self._open_stream is not None:
            self._open_stream.end(error=error)
            self._open_stream = None
        elif not self._document_done:
            self.document({"error": error})

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raw bytes on standard output. ``OSError`` where it can't take them (a full disk)."""
        if self.reader_gone or sys.stdout is None:
            return
        try:
            sys.stdout.buffer.write(data)
        except BrokenPipeError:
            self._reader_went()

    def close(self) -> None:
        """Flush, so that nothing is left for the interpreter's end to fail on. ``OSError`` as ``write``."""
        self._flush()

    def _flush(self) -> None:
        if self.reader_gone or sys.stdout is None:
            return
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            self._reader_went()
        except OSError:
            discard(sys.stdout)  # what could not be written must not be tried again when the interpreter ends
            raise

    def _reader_went(self) -> None:
        self.reader_gone = True
        discard(sys.stdout)

    # Standard error

    def message(self, text: str) -> None:
        """Something worth knowing; ``--quiet`` leaves it out."""
        if not self.quiet:
            self._say(text)

    def warning(self, text: str) -> None:
        """Something wrong that does not stop the work."""
        self.warned(text)
        self._say(f"warning: {text}")

    def error(self, text: str) -> None:
        """Why the run failed, or the traceback that was asked for."""
        self._say(text)

    def _say(self, text: str) -> None:
        self.before_message()
        say(safe_message(self.redact(text)) + "\n")


class DocumentStream:
    """A JSON object whose last member is a list, or a string, of any length."""

    def __init__(
        self, output: Output, head: Mapping[str, Any], name: str, brackets: tuple[bytes, bytes] = (b"[", b"\n]")
    ) -> None:
        self._output = output
        self._closing = brackets[1]
        members = [_encoded(key) + b": " + _encoded(value) for key, value in head.items()]
        output.write(b"{" + b", ".join([*members, _encoded(name) + b": " + brackets[0]]))
        self._separator = b"\n "

    def add(self, value: Any) -> None:
        """One more element."""
        self._output.write(self._separator + _encoded(value))
        self._separator = b",\n "

    def end(self, *, error: Mapping[str, Any] | None = None) -> None:
        """Close the member and the object."""
        tail = b"" if error is None else b', "error": ' + _encoded(error)
        self._output.write(self._closing + tail + b"}\n")
        self._output.close()


def say(text: str) -> None:
    """``text`` as it is on standard error; a standard error that is gone is no reason to stop."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode(sys.stderr.encoding))
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send the rest of ``stream`` to nowhere, what is buffered too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _encoded(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(_clean(value), ensure_ascii=False, indent=indent).encode("utf-8")


def _clean(value: Any) -> Any:
    """``value`` with every string fit for JSON (``json_text``)."""
    if isinstance(value, str):
        return json_text(value)
    if isinstance(value, Mapping):
        return {_clean(key): _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return value
