"""The command line: one file per verb, and little else.

A verb's file has ``register(subparsers)`` (its words, help and examples) and
``run(arguments, context) -> int`` (what it does; the exit code). ``verbs.py`` names the files, so that
only the chosen verb's file is imported: ``--help`` loads no engine, no pydantic, not even argparse.

What holds everywhere, and is kept in one place each:

* results go to standard output; progress, messages and errors to standard error (``terminal/``);
* ``--json`` prints exactly one document on standard output, errors included (``terminal/output.py``);
* every error class has an exit code (``exit_codes.py``) and is one line with a hint, never a
  traceback or a secret (``failures.py``, ``redaction.py``);
* SIGINT, SIGTERM and the time limit end the work cleanly (``interruption.py``).

This room decides nothing about backups: it parses, calls the rooms below, and shows what they return.
"""
