"""Exercises an endpoint with redis-py (RESP2). See package program for the lines it prints."""

import os
import sys
import threading
import time

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

HOST, PORT, PASSWORD = sys.argv[2], int(sys.argv[3]), os.environ["REDIS_PASSWORD"]


def connect_to(**more):
    options = dict(host=HOST, port=PORT, password=PASSWORD, decode_responses=True, socket_timeout=10)
    options.update(more)
    return redis.Redis(**options)


class Seen:
    def __init__(self):
        self.parts = []

    def add(self, what, value):
        self.parts.append(f"{what} {sorted(value) if isinstance(value, set) else value}")

    def call(self, what, function, *args, **more):
        """Adds what a call returned, or the server's error and the class it became."""
        try:
            self.add(what, function(*args, **more))
        except (redis.exceptions.ResponseError, redis.exceptions.WatchError) as e:
            self.add(what, f"{type(e).__name__} {e}")


failed = False


def one_line(text):
    return text.replace("\r", "\\r").replace("\n", "\\n")


def check(name, feature):
    global failed
    seen = Seen()
    try:
        feature(seen)
        print("ok", name, one_line(" | ".join(seen.parts)), flush=True)
    except Exception as e:  # a program that reports must not end early
        failed = True
        print("FAIL", name, one_line(f"{type(e).__name__} {e}, after: " + " | ".join(seen.parts)), flush=True)


def want(what, got, expected):
    if got != expected:
        raise AssertionError(f"{what}: got {str(got)[:200]}, want {str(expected)[:200]}")


def later(function, *args):
    t = threading.Timer(0.15, function, args)
    t.start()
    return t


def connect(seen):
    r = connect_to()
    seen.call("flushall", r.flushall)
    named = connect_to(client_name="named", db=1, username="default", single_connection_client=True)
    seen.call("name", named.client_getname)
    seen.add("database", [c["db"] for c in r.client_list() if c["name"] == "named"])
    hello = named.execute_command("HELLO", "2", "AUTH", "default", PASSWORD, "SETNAME", "renamed")
    seen.add("proto", hello[hello.index("proto") + 1])
    seen.call("renamed", named.client_getname)
    seen.call("ping", r.ping)
    seen.call("echo", r.echo, "hello")
    for what, password in (("wrong", "wrong"), ("none", None)):
        try:
            seen.add(what, connect_to(password=password).ping())
        except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError) as e:
            seen.add(what, f"{type(e).__name__} {e}")
    info = r.info("server")
    seen.add("version", info["redis_version"])
    seen.add("mode", info["redis_mode"])


def pipelines(seen):
    r = connect_to()
    p = r.pipeline(transaction=False)
    for i in range(5000):
        p.set(f"pipe:{i}", i)
        p.get(f"pipe:{i}")
        if i % 1000 == 500:
            p.execute_command("NOSUCH")
    replies = p.execute(raise_on_error=False)
    errors = [x for x in replies if isinstance(x, Exception)]
    values = [x for x in replies if not isinstance(x, Exception)]
    want("GETs", values[1::2], [str(i) for i in range(5000)])
    seen.add("errors", [str(e) for e in errors])
    p = r.pipeline(transaction=False)
    p.set("pipe:x", "1").lpush("pipe:x", "2").get("pipe:x")
    seen.call("raises", p.execute)


def transactions(seen):
    r = connect_to()
    p = r.pipeline()
    p.set("{tx}a", 1).incr("{tx}a").hset("{tx}h", "f", "v").hgetall("{tx}h").ping()
    seen.call("exec", p.execute)
    p.set("{tx}a", "9").execute_command("SET", "{tx}a")
    seen.call("bad", p.execute)
    p = r.pipeline()
    p.lpush("{tx}a", "x").incr("{tx}a")
    seen.add("wrong type", [str(x) for x in p.execute(raise_on_error=False)])
    with r.pipeline() as p:
        p.watch("{tx}a")
        value = int(p.get("{tx}a"))
        p.multi()
        p.set("{tx}a", value * 2)
        seen.call("watch", p.execute)
    with r.pipeline() as p:
        p.watch("{tx}a")
        r.set("{tx}a", "other")
        p.multi()
        p.set("{tx}a", "mine")
        seen.call("conflict", p.execute)
    seen.call("get", r.get, "{tx}a")
    seen.call("helper", r.transaction, lambda p: p.multi() or p.set("{tx}b", "2"), "{tx}b")
    p = r.pipeline()
    p.set("slot:1", 1).set("slot:2", 2).set("slot:3", 3)
    p.reset()


def take(sub):
    deadline = time.time() + 5
    while time.time() < deadline:
        message = sub.get_message(timeout=0.2)
        if message is not None:
            return sorted((k, str(v)) for k, v in message.items())
    raise AssertionError("no message within 5 s")


def pubsub(seen):
    r = connect_to()
    sub = r.pubsub()
    sub.subscribe("news:1", "news:2")
    sub.psubscribe("news:*")
    for _ in range(3):
        seen.add("subscribed", take(sub))
    seen.call("publish", r.publish, "news:1", "hello")
    seen.add("messages", sorted([take(sub), take(sub)]))
    seen.call("numsub", r.pubsub_numsub, "news:1", "news:2", "none")
    seen.add("channels", sorted(r.pubsub_channels("news:*")))
    seen.call("numpat", r.pubsub_numpat)
    sub.ping("still there")
    seen.add("ping", take(sub))
    sub.unsubscribe("news:1")
    seen.add("unsubscribed", take(sub))
    sub.punsubscribe()
    seen.add("punsubscribed", take(sub))
    sub.close()
    got = threading.Event()
    handled = r.pubsub(ignore_subscribe_messages=True)
    handled.subscribe(**{"handled": lambda message: got.set()})
    thread = handled.run_in_thread(sleep_time=0.05)
    for _ in range(50):
        r.publish("handled", "x")
        if got.wait(0.1):
            break
    seen.add("thread", got.is_set())
    thread.stop()
    thread.join()


def blocking(seen):
    r, other = connect_to(), connect_to()
    later(other.rpush, "{q}queue", "job")
    seen.call("blpop", r.blpop, ["{q}first", "{q}queue"], timeout=5)
    later(other.rpush, "{q}queue", "job")
    seen.call("brpop", r.brpop, "{q}queue", timeout=5)
    later(other.rpush, "{q}a", "move")
    seen.call("blmove", r.blmove, "{q}a", "{q}b", 5)
    later(other.rpush, "{q}a", "push")
    seen.call("brpoplpush", r.brpoplpush, "{q}a", "{q}b", 5)
    later(other.zadd, "ranked", {"low": 1.5})
    seen.call("bzpopmin", r.bzpopmin, "ranked", 5)
    later(other.rpush, "{q}m", "x", "y")
    seen.call("blmpop", r.blmpop, 5, 2, "{q}l", "{q}m", direction="LEFT", count=10)
    later(other.xadd, "log", {"a": "b"}, "5-1")
    seen.call("xread", r.xread, {"log": "$"}, block=5000)
    r.xgroup_create("log", "readers", "$")
    later(other.xadd, "log", {"a": "c"}, "6-1")
    seen.call("xreadgroup", r.xreadgroup, "readers", "alice", {"log": ">"}, block=5000)
    seen.call("timeout", r.blpop, "empty", timeout=1)
    seen.add("wait", isinstance(r.wait(0, 100), int))
    lock = r.lock("lock", timeout=5)
    seen.call("lock", lock.acquire)
    seen.call("release", lock.release)


def scripts(seen):
    r = connect_to()
    seen.call("eval", r.eval, "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}", 1, "{s}n", "arg")
    seen.call("no keys", r.eval, "return 42", 0)
    script = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    for key in ("s1", "s2", "s3", "s4"):
        seen.call("script", script, keys=[key], args=[7])
    sha = r.script_load("return ARGV[1]")
    seen.add("load", sha)
    for key in ("s1", "s2", "s3", "s4"):
        seen.call("evalsha", r.evalsha, sha, 1, key, key)
    p = r.pipeline()
    script(keys=["s1"], args=[1], client=p)
    p.evalsha(sha, 1, "s1", "in a transaction")
    seen.call("pipeline", p.execute)
    seen.call("exists", r.script_exists, sha, "f" * 40)
    seen.call("unknown", r.evalsha, "f" * 40, 0)
    seen.call("fails", r.eval, "return redis.call('LPUSH', KEYS[1], 'x')", 1, "s1")
    seen.call("flush", r.script_flush)
    seen.call("flushed", r.script_exists, sha)
    seen.call("reloads", script, keys=["s1"], args=[1])


def functions(seen):
    r = connect_to()
    code = "#!lua name=redispy\nredis.register_function('redispy_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)"
    seen.call("load", r.function_load, code, replace=True)
    seen.call("again", r.function_load, code)
    for key in ("f1", "f2", "f3", "f4"):
        seen.call("fcall", r.fcall, "redispy_set", 1, key, key)
    seen.call("list", r.function_list, "redispy")
    stats = r.function_stats()
    seen.add("stats", stats)
    seen.call("delete", r.function_delete, "redispy")
    seen.call("gone", r.fcall, "redispy_set", 1, "f1", "x")


def scan(seen):
    r = connect_to()
    p = r.pipeline(transaction=False)
    for i in range(1000):
        p.set(f"scan:{i}", i)
        p.hset("scanned", f"field:{i}", i)
        p.zadd("zscanned", {f"member:{i}": i})
    p.execute()
    seen.add("keys", len(set(r.scan_iter(match="scan:*", count=57))))
    seen.add("hashes", sorted(r.scan_iter(count=500, _type="HASH")))
    seen.add("fields", len(dict(r.hscan_iter("scanned", count=100))))
    seen.add("members", len(dict(r.zscan_iter("zscanned", count=100))))
    seen.add("matched", sorted(r.keys("scan:99*")))
    seen.add("random", r.randomkey() is not None)


def values(seen):
    r = connect_to(decode_responses=False)
    big = b"0123456789abcdef" * (1 << 20)
    seen.call("set", r.set, "big", big)
    seen.add("16 MiB are the same", r.get("big") == big)
    binary = b"\x00\r\n$-1\r\n\xff"
    seen.call("set", r.set, binary, binary)
    seen.add("binary", r.get(binary) == binary)
    seen.call("mset", r.mset, {f"big:{i}": big[: 1 << 18] for i in range(10)})
    seen.add("mget", [len(v) for v in r.mget([f"big:{i}" for i in range(10)])])
    seen.call("del", r.delete, "big", binary)


def client(seen):
    r = connect_to()
    victim = connect_to(client_name="victim", single_connection_client=True)
    number = victim.client_id()
    seen.add("listed", len([c for c in r.client_list() if c["name"] == "victim"]))
    seen.call("kill", r.client_kill_filter, _id=number)
    try:
        victim.get("missing")
    except redis.exceptions.ConnectionError:
        pass
    seen.call("again", victim.ping)
    later(r.client_unblock, victim.client_id())
    seen.call("unblocked", victim.blpop, "nothing", timeout=5)
    seen.call("pause", r.client_pause, 200, False)
    begin = time.time()
    seen.call("set", victim.set, "paused", "x")
    seen.add("it waited", time.time() - begin > 0.1)
    seen.call("unpause", r.client_unpause)


def acl(seen):
    r = connect_to()
    seen.call("whoami", r.acl_whoami)
    seen.call("setuser", r.acl_setuser, "redispy", enabled=True, passwords=["+secret"], keys=["app:*"],
              channels=["app:*"], categories=["+@all", "-@dangerous"], reset=True)
    got = r.acl_getuser("redispy")
    seen.add("getuser", sorted((k, str(v)) for k, v in got.items() if k in ("flags", "keys", "channels", "enabled", "categories")))
    user = connect_to(username="redispy", password="secret")
    seen.call("whoami", user.acl_whoami)
    seen.call("own key", user.set, "app:key", "x")
    seen.call("other key", user.set, "key", "x")
    seen.call("dangerous", user.flushall)
    seen.add("listed", len([line for line in r.acl_list() if line.startswith("user redispy ")]))
    seen.call("deluser", r.acl_deluser, "redispy")
    seen.add("categories", len(r.acl_cat()) > 15)


def steps():
    r = connect_to(single_connection_client=True)
    # These decode only what the methods of their names asked for.
    for name in ("COMMAND", "GEOSEARCH", "OBJECT", "SORT"):
        r.response_callbacks.pop(name, None)
    sections = []
    for line in open(sys.argv[4], encoding="utf-8"):
        line = line.strip()
        if line.startswith("["):
            sections.append((line.strip("[]"), []))
        elif line and not line.startswith("#"):
            sections[-1][1].append(line)

    def runner(lines):
        def run(seen):
            want("steps", len(lines) > 0, True)
            for line in lines:
                seen.call(line + ":", r.execute_command, *line.split(" "))
        return run

    for name, lines in sections:
        check(name, runner(lines))


class Course:
    """The loop that goes on while servers die: package program, failover.go, says what must hold."""

    def __init__(self):
        self.name = f"failover:py:{os.getpid()}:"
        self.wrong, self.errors, self.calls, self.back = [], 0, 0, 0
        self.gap, self.said = 0.0, ""
        self.stop, self.popped, self.arrived = threading.Event(), threading.Event(), threading.Event()
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.01), 5)
        kinds = [redis.exceptions.ConnectionError, redis.exceptions.TimeoutError]
        self.r = connect_to(retry=retry, retry_on_error=kinds, socket_connect_timeout=1)

    def failure(self, e):
        self.errors += 1
        self.said = one_line(str(e))
        time.sleep(0.02)

    def pop(self):
        while not self.popped.is_set():
            try:
                got = self.r.blpop(self.name + "list", timeout=1)
            except redis.exceptions.RedisError as e:
                self.failure(e)
                continue
            if got is None:
                continue
            if got[1] == "last":
                self.popped.set()
            elif got[0] != self.name + "list" or not got[1].startswith("item="):
                self.wrong.append(f"an item of the list: {got}")

    def listen(self):
        sub = self.r.pubsub()
        subscribed = False
        while not self.arrived.is_set():
            try:
                if not subscribed:
                    sub.subscribe(self.name + "channel")
                    subscribed = True
                message = sub.get_message(timeout=0.2)
            except redis.exceptions.RedisError as e:
                self.failure(e)
                continue
            if message is None or message["type"] != "message":
                continue
            if message["data"] == "last":
                self.arrived.set()
            elif not message["data"].startswith("news="):
                self.wrong.append(f"a message: {message}")

    def write(self):
        i, before, good = 0, 0, time.time()
        while not self.stop.is_set():
            i += 1
            key = f"{self.name}{i % 12}"
            try:
                self.calls += 3
                self.r.set(key, f"{key}={i}")
                value = self.r.get(key)
                if value is not None:
                    of, _, number = value.partition("=")
                    if of != key or int(number) > i:
                        self.wrong.append(f"GET {key}: {value} after {i} were set")
                n = self.r.incr(self.name + "counter")
                if n < 1 or n > i + 100:
                    self.wrong.append(f"INCR: {n} after {i} calls")
                if n <= before:
                    self.back += 1
                before = n
                if i % 10 == 0:
                    self.r.rpush(self.name + "list", f"item={i}")
                    self.r.publish(self.name + "channel", f"news={i}")
                self.gap, good = max(self.gap, time.time() - good), time.time()
            except redis.exceptions.RedisError as e:
                self.failure(e)
            time.sleep(0.005)

    def exact(self):
        for i in range(12):
            self.r.set(f"{self.name}{i}", f"end={i}")
        want("GETs", [self.r.get(f"{self.name}{i}") for i in range(12)], [f"end={i}" for i in range(12)])
        n = self.r.incr(self.name + "counter")
        want("INCRs", [self.r.incr(self.name + "counter") for _ in range(10)], list(range(n + 1, n + 11)))
        return True

    def until(self, what, attempt):
        deadline, last = time.time() + 10, None
        while time.time() < deadline:
            try:
                if attempt():
                    return
            except (redis.exceptions.RedisError, AssertionError) as e:
                last = e
        raise AssertionError(f"{what}: not within 10 s: {last}")

    def last_item(self):
        self.r.rpush(self.name + "list", "last")
        return self.popped.wait(0.5)

    def last_message(self):
        self.r.publish(self.name + "channel", "last")
        return self.arrived.wait(0.5)

    def run(self, seen):
        for loop in (self.pop, self.listen, self.write):
            threading.Thread(target=loop, daemon=True).start()
        print("# ready", flush=True)
        sys.stdin.readline()
        self.stop.set()
        try:
            self.until("one SET, GET and INCR after another", self.exact)
            self.until("the last item arrives", self.last_item)
            self.until("the last message arrives", self.last_message)
        finally:
            print(f"# failover: {self.calls} calls, {self.errors} errors (last: {self.said}), counter went back {self.back} times, "
                  f"longest time without success {self.gap * 1000:.0f}ms", flush=True)
        want("wrong values", self.wrong, [])
        want("the counter went back at most 3 times", self.back <= 3, True)


if sys.argv[1] == "failover":
    check("failover", Course().run)
else:
    for feature in (connect, pipelines, transactions, pubsub, blocking, scripts, functions, scan, values, client, acl):
        check(feature.__name__, feature)
    print("none tracking RESP2 only", flush=True)
    steps()
sys.exit(1 if failed else 0)
