"""Runs jobs of RQ at an endpoint. See package program for the line it prints."""

import os
import sys

import redis
from rq import Queue, Retry, SimpleWorker
from rq.registry import FailedJobRegistry, FinishedJobRegistry

HOST, PORT, PASSWORD = sys.argv[2], int(sys.argv[3]), os.environ["REDIS_PASSWORD"]


def main():
    r = redis.Redis(host=HOST, port=PORT, password=PASSWORD, socket_timeout=20)
    r.flushall()
    high, low = Queue("high", connection=r), Queue("low", connection=r)
    # A job that others wait for, one that fails and is tried again, and many at once.
    first = low.enqueue("builtins.sum", [1, 2, 3])
    second = high.enqueue("builtins.pow", 2, 10, depends_on=first)
    third = high.enqueue("builtins.max", [4, 9], depends_on=[first, second])
    bad = low.enqueue("builtins.int", "no number", retry=Retry(max=1))
    many = low.enqueue_many([Queue.prepare_data("builtins.abs", (-i,)) for i in range(20)])
    canceled = low.enqueue("builtins.abs", -1)
    canceled.cancel()
    worker = SimpleWorker([high, low], connection=r, name="worker")
    while high.count + low.count > 0:
        worker.work(burst=True, logging_level="CRITICAL")
    for job in (first, second, third, bad, canceled):
        job.refresh()
    parts = [
        f"results {first.result} {second.result} {third.result}",
        f"many {sum(job.fetch(job.id, connection=r).result for job in many)}",
        f"bad {bad.get_status()} {len(FailedJobRegistry(queue=low))}",
        f"canceled {canceled.get_status()}",
        f"finished {len(FinishedJobRegistry(queue=low))} {len(FinishedJobRegistry(queue=high))}",
        f"left {high.count} {low.count}",
    ]
    if third.result != 9 or bad.get_status() != "failed":
        raise AssertionError(" | ".join(parts))
    return parts


try:
    print("ok rq", " | ".join(main()), flush=True)
except Exception as e:
    print("FAIL rq", repr(e).replace("\n", "\\n"), flush=True)
