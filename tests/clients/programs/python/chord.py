"""Runs a Celery chord with an endpoint as broker and result backend. See package program for the line it prints."""

import os
import sys

import redis
from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker

HOST, PORT, PASSWORD = sys.argv[2], int(sys.argv[3]), os.environ["REDIS_PASSWORD"]
URL = f"redis://:{PASSWORD}@{HOST}:{PORT}/0"

app = Celery("chord", broker=URL, backend=URL)
app.conf.worker_hijack_root_logger = False


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


def main():
    redis.Redis(host=HOST, port=PORT, password=PASSWORD).flushall()
    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False, loglevel="CRITICAL"):
        one = chord(add.s(i, i) for i in range(10))(total.s()).get(timeout=30)
        # A chord within a chord, and a chain behind it.
        nested = chord([group(add.s(i, 1) for i in range(5)), add.s(100, 1)], total.s())
        two = (nested | add.s(1000)).apply_async().get(timeout=30)
    if (one, two) != (90, 1116):
        raise AssertionError(f"{one} {two}")
    return [f"chord {one}", f"nested {two}"]


try:
    print("ok chord", " | ".join(main()), flush=True)
except Exception as e:
    print("FAIL chord", repr(e).replace("\n", "\\n"), flush=True)
