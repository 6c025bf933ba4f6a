"""The storage `aws_s3` against rclone and the SDK's own transfer manager, and a backup to it against one to the disk::

    python -m benchmarks.storages_s3                      # 32 objects of 16 MiB, a tree of 1.07 GB, 3 rounds
    python -m benchmarks.storages_s3 --objects 8 --scale 0.05 --rounds 1

The server is `versitygw` or `minio` where one is on the PATH, else moto, which is slow and not to be compared with
anything. It runs on the same machine, so it takes its share of the processors from all of them alike. Contenders
take turns, and each round begins with another. All upload the same files from the same disk; ours reads them whole and
puts them as a backup does, on four threads.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.trees import make_tree
from chrono_backups.storage.s3 import S3Storage
from chrono_backups_tests.servers.moto_server import ACCESS_KEY, SECRET_KEY, MotoServer, s3_client, s3_settings
from chrono_backups_tests.servers.s3_binary import program, s3_server

_SIZE = 16 * 2**20
_THREADS = 4
_CHECKOUT = Path(__file__).resolve().parent.parent


@contextmanager
def server(room: Path) -> Iterator[tuple[str, int]]:
    """Its name and port."""
    found = program()
    if found is None:
        with MotoServer() as moto:
            yield "moto", moto.port
    else:
        with s3_server(found, room) as port:
            yield Path(found).name, port


def ours(port: int, bucket: str, files: list[Path]) -> None:
    storage = S3Storage.open(s3_settings(port, bucket))
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda file: storage.put(f"packs/{file.name}", file.read_bytes()), files))
    storage.close()


def transfer_manager(port: int, bucket: str, files: list[Path]) -> None:
    """boto3's, with its usual settings: ten threads, parts of 8 MiB."""
    from boto3.s3.transfer import S3Transfer  # noqa: PLC0415 - only this contender needs it

    client = s3_client(port)
    transfer = S3Transfer(client)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda file: transfer.upload_file(str(file), bucket, f"packs/{file.name}"), files))
    client.close()


def rclone(port: int, bucket: str, files: list[Path]) -> None:
    """With its usual settings: four transfers."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_S_TYPE": "s3",
        "RCLONE_CONFIG_S_PROVIDER": "Other",
        "RCLONE_CONFIG_S_ENDPOINT": f"http://127.0.0.1:{port}",
        "RCLONE_CONFIG_S_ACCESS_KEY_ID": ACCESS_KEY,
        "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": SECRET_KEY,
        "RCLONE_CONFIG_S_FORCE_PATH_STYLE": "true",
    }
    source = str(files[0].parent)
    subprocess.run(["rclone", "copy", "--quiet", source, f"s:{bucket}/packs"], env=environment, check=True)


Upload = Callable[[int, str, list[Path]], None]


def uploads(port: int, room: Path, objects: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender, by round."""
    folder = room / "objects"
    folder.mkdir()
    files = [folder / f"{number:04}" for number in range(objects)]
    for file in files:
        file.write_bytes(os.urandom(_SIZE))
    contenders: list[Upload] = [ours, transfer_manager, *([rclone] if shutil.which("rclone") else [])]
    client = s3_client(port)
    seconds: dict[str, list[float]] = {one.__name__: [] for one in contenders}
    for number in range(rounds + 1):  # the first one warms up
        for one in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
            bucket = f"{one.__name__.replace('_', '-')}-{number}"
            client.create_bucket(Bucket=bucket)
            os.sync()
            began = time.perf_counter()
            one(port, bucket, files)
            if number:
                seconds[one.__name__].append(time.perf_counter() - began)
            stored = client.list_objects_v2(Bucket=bucket)["Contents"]
            assert [each["Size"] for each in stored] == [_SIZE] * objects
            for each in stored:
                client.delete_object(Bucket=bucket, Key=each["Key"])
    client.close()
    shutil.rmtree(folder)
    return seconds


def backups(port: int, room: Path, scale: float, rounds: int) -> dict[str, list[float]]:
    """Seconds of a first full backup by the command, by round: to the disk and to the server."""
    tree = room / "tree"
    make_tree(tree, scale, 1)
    client = s3_client(port)
    seconds: dict[str, list[float]] = {"local": [], "aws_s3": []}
    for number in range(rounds):
        for storage in list(seconds)[:: 1 if number % 2 else -1]:
            bucket = f"backup-{number}-{storage.replace('_', '-')}"
            client.create_bucket(Bucket=bucket)
            environment = _environment(storage, port, bucket, room / f"local-{number}", tree, room)
            _chrono(environment, "init")
            os.sync()
            began = time.perf_counter()
            _chrono(environment, "backup", "--type", "full", "--json")
            seconds[storage].append(time.perf_counter() - began)
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for each in page.get("Contents", ()):
                    client.delete_object(Bucket=bucket, Key=each["Key"])
        shutil.rmtree(room / f"local-{number}")
    client.close()
    return seconds


def _environment(storage: str, port: int, bucket: str, local: Path, tree: Path, room: Path) -> dict[str, str]:
    where = {"BACKUP_LOCAL_PATH": str(local)}
    if storage == "aws_s3":
        where = {
            "BACKUP_AWS_ENABLED": "true",
            "BACKUP_AWS_BUCKET_NAME": bucket,
            "BACKUP_AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "BACKUP_AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "BACKUP_AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "BACKUP_CACHE_DIR": str(room / "cache"),
        }
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(room),
        "PYTHONPATH": str(_CHECKOUT),
        "BACKUP_FILES_PATHS": str(tree),
        "BACKUP_SOURCES": "files",
        "BACKUP_COMPRESSION_LEVEL": "1",
        "BACKUP_ENCRYPTION_KEY": urlsafe_b64encode(bytes(range(32))).decode(),
        **where,
    }


def _chrono(environment: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "chrono_backups", *arguments]
    subprocess.run(command, env=environment, cwd=environment["HOME"], check=True, capture_output=True)


def _row(name: str, amount: float, seconds: list[float], against: list[float] | None = None) -> str:
    middle = statistics.median(seconds)
    ratio = "" if against is None else f"{statistics.median(against) / middle:.2f}"
    return f"| {name} | {middle:.2f} s | {amount / middle / 1e6:.0f} MB/s | {ratio} |"


def main(arguments: list[str] | None = None) -> int:
    """Print two tables; the last column is our throughput against that row's, or S3's against the disk's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storages_s3")
    parser.add_argument("--objects", type=int, default=32, help="objects of 16 MiB to upload (default 32)")
    parser.add_argument("--scale", type=float, default=0.5, help="size of the tree; 0.5 is 1.07 GB (default)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where all is made (default: the directory for temporary files)")
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="storages-", dir=options.work) as made, server(Path(made)) as (name, port):
        room = Path(made)
        print(f"server: {name}; load {os.getloadavg()[0]:.1f} of {os.cpu_count()} processors")
        measured = uploads(port, room, options.objects, options.rounds)
        print("\n| upload | median | speed | ours against it |\n|---|---|---|---|")
        for contender, seconds in measured.items():
            ratios = [one / own for one, own in zip(seconds, measured["ours"], strict=True)]
            row = _row(contender.replace("_", " "), options.objects * _SIZE, seconds)
            print(row.removesuffix(" |") + f"{statistics.median(ratios):.2f} |")
        taken = backups(port, room, options.scale, options.rounds)
        size = sum(path.lstat().st_size for path in (room / "tree").rglob("*") if path.is_file())
        print("\n| full backup | median | speed | against the disk |\n|---|---|---|---|")
        print(_row("local", size, taken["local"]))
        print(_row("aws_s3", size, taken["aws_s3"], taken["local"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
