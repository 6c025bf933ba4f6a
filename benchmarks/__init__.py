"""Measures chrono-backups against its peers on the same data in one run: `python -m benchmarks files`.

`trees` and `text` make the data, `ours` and `peers` say what each contender runs, `measure` runs one command and
reads what it cost, `runner` alternates the contenders, `targets` holds the bounds, `report` prints and writes.
Nothing outside the work directory is written, and only the contenders' own run is timed.
"""
