"""From the words of the command line to an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chrono_backups.cli import verbs

if TYPE_CHECKING:
    from chrono_backups.cli.context import Context
    from chrono_backups.cli.recording import Recording
    from chrono_backups.cli.terminal.output import Output


def main(words: Sequence[str]) -> int:
    """Run the program with ``words`` (without its name). Returns its exit code, whatever happens."""
    before, verb = verbs.split(words)
    if "-h" in before or "--help" in before:
        return _answer(verbs.help_text())
    if "--version" in before:
        return _answer(_version())
    if verb == "wal-fetch" and (code := _served(words)) is not None:
        return code
    # Imported here so that the help above loads next to nothing (a test holds it).
    from chrono_backups.cli.interruption import stoppable  # noqa: PLC0415
    from chrono_backups.cli.terminal.output import Output  # noqa: PLC0415

    own_words = words[: words.index("--")] if "--" in words else words
    output = Output(json="--json" in own_words, quiet="--quiet" in own_words)
    with stoppable():
        return _guarded(words, verb, output)


def _answer(text: str) -> int:
    """Print it. As ``Output`` does, which is not worth loading unless something is wrong."""
    if sys.stdout is None:
        return 0
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        from chrono_backups.cli.terminal.output import discard  # noqa: PLC0415

        discard(sys.stdout)
        return 0 if isinstance(error, BrokenPipeError) else 1
    return 0


def _served(words: Sequence[str]) -> int | None:
    """The exit code, where a helper that has been started already gives what is asked for: replay waits for this."""
    from chrono_backups.recovery.wal_question import served  # noqa: PLC0415 - for this verb only

    try:
        return served(words)
    except Exception:  # by Python's exit code, 1, the server would take this for the end of its log
        return None


def _version() -> str:
    from chrono_backups import __version__  # noqa: PLC0415

    return f"{verbs.PROGRAM} {__version__}\n"


def _guarded(words: Sequence[str], typed: str | None, output: Output) -> int:
    """Every way a run can end, as an exit code."""
    import os  # noqa: PLC0415 - as in main

    from chrono_backups.cli import failures  # noqa: PLC0415
    from chrono_backups.cli.context import DEBUG, Context  # noqa: PLC0415
    from chrono_backups.cli.recording import Recording  # noqa: PLC0415

    debug = "--debug" in words or os.environ.get(DEBUG, "").lower() in ("1", "true", "yes")
    context = Context(output)
    recording = Recording(context)
    try:
        try:
            code = _run(words, typed, context, recording)
            recording.end(code)
        except SystemExit:  # argparse has printed a verb's help
            code = 0
        except BaseException as error:
            recording.failed(error)
            raise
        finally:
            output.release()
        output.close()
    except KeyboardInterrupt as interruption:
        code = failures.report_interruption(output, interruption, context.when_cancelled, debug=debug)
        _tell(context, interruption)
        return code
    except Exception as error:
        code = failures.report(output, error, debug=debug, code=verbs.failure_code(typed))
        _tell(context, error)
        return code
    _tell(context, None)
    if context.leave_at_once:
        os._exit(code)
    return code


def _tell(context: Context, error: BaseException | None) -> None:
    """Have others hear of it, where the verb did what concerns them."""
    if context.undertaken is not None:
        from chrono_backups.cli.notifying import tell  # noqa: PLC0415 - as in main

        tell(context, error)


def _run(words: Sequence[str], typed: str | None, context: Context, recording: Recording) -> int:
    import importlib  # noqa: PLC0415 - as in main

    from chrono_backups.cli.arguments import parse  # noqa: PLC0415
    from chrono_backups.errors import UsageError  # noqa: PLC0415

    verb = verbs.find(typed) if typed is not None else None
    if verb is None:
        raise UsageError(
            "which verb?" if typed is None else f"there is no verb {typed!r}",
            hint=f"`{verbs.PROGRAM} --help` lists the verbs.",
        )
    module = importlib.import_module(verbs.module_of(verb))
    arguments = parse(words, verb, module)
    context.env_file = arguments.env_file
    recording.begin(verb, arguments)
    code: int = module.run(arguments, context)
    return code
