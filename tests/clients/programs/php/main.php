<?php
// Exercises an endpoint with phpredis (RESP2), whose connection is found again by
// the next command. See package program for the lines it prints. PHP has no
// threads: what must happen meanwhile happens in a forked process.
declare(strict_types=1);

[, $mode, $host, $port] = $argv;
$port = (int) $port;
$password = getenv('REDIS_PASSWORD');
$failed = false;

final class Seen
{
    /** @var string[] */
    public array $parts = [];

    public function add(string $what, mixed $value): void
    {
        $this->parts[] = $what . ' ' . (is_string($value) ? $value : json_encode($value, JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE));
    }

    /** Adds what a call returned, and the server's error, which phpredis keeps or throws. */
    public function call(string $what, Redis $r, callable $do): void
    {
        $r->clearLastError();
        try {
            $value = $do();
        } catch (RedisException $e) {
            if (str_contains($e->getMessage(), 'went away') || str_contains($e->getMessage(), 'read error')) {
                throw $e;
            }
            $value = get_class($e) . ' ' . $e->getMessage();
        }
        $error = $r->getLastError();
        $this->add($what, $value instanceof Redis ? 'itself' : $value);
        if ($error !== null) {
            $this->add('error', $error);
        }
    }
}

function oneLine(string $text): string
{
    return str_replace(["\r", "\n"], ['\r', '\n'], $text);
}

function check(string $name, callable $feature): void
{
    global $failed;
    $seen = new Seen();
    try {
        $feature($seen);
        echo "ok $name ", oneLine(implode(' | ', $seen->parts)), "\n";
    } catch (Throwable $e) {
        $failed = true;
        echo "FAIL $name ", oneLine(get_class($e) . ' ' . $e->getMessage() . ', line ' . $e->getLine() . ', after: ' . implode(' | ', $seen->parts)), "\n";
    }
}

function want(string $what, mixed $got, mixed $expected): void
{
    if ($got !== $expected) {
        throw new RuntimeException($what . ': got ' . substr((string) json_encode($got), 0, 200) . ', want ' . substr((string) json_encode($expected), 0, 200));
    }
}

function connectTo(mixed $auth = null, int $database = 0): Redis
{
    global $host, $port, $password;
    $r = new Redis();
    $r->connect($host, $port, 2.0, null, 20, 10.0, ['auth' => $auth ?? $password]);
    if ($database !== 0) {
        $r->select($database);
    }
    return $r;
}

/** subscribed runs a subscription until it closes its connection, as phpredis would wait for messages forever. */
function subscribed(callable $subscription): void
{
    try {
        $subscription();
    } catch (RedisException $e) {
        want('the end of a subscription', $e->getMessage(), 'Connection closed');
    }
}

/** later runs something in another process, with a connection of its own, soon. */
function later(callable $do): int
{
    $pid = pcntl_fork();
    if ($pid === 0) {
        usleep(150000);
        $do(connectTo());
        // Not exit: what PHP would close at its end belongs to the parent too.
        posix_kill(posix_getpid(), SIGKILL);
    }
    return $pid;
}

function connect(Seen $seen): void
{
    global $host, $port, $password;
    $r = connectTo();
    $seen->call('flushall', $r, fn () => $r->flushAll());
    $named = connectTo(['default', $password], 1);
    $seen->call('setname', $named, fn () => $named->client('setname', 'named'));
    $seen->call('name', $named, fn () => $named->client('getname'));
    $seen->add('database', array_column(array_filter($r->client('list'), fn ($c) => $c['name'] === 'named'), 'db'));
    $seen->call('ping', $r, fn () => $r->ping('hello'));
    $seen->call('echo', $r, fn () => $r->echo('hello'));
    $seen->add('version', $r->info('server')['redis_version']);
    $hello = $r->rawCommand('HELLO', '2', 'AUTH', 'default', $password, 'SETNAME', 'renamed');
    $seen->add('proto', $hello[array_search('proto', $hello, true) + 1]);
    $stranger = new Redis();
    $stranger->connect($host, $port, 2.0);
    $seen->call('no password', $stranger, fn () => $stranger->get('x'));
    $seen->call('wrong password', $stranger, fn () => $stranger->auth('wrong'));
}

function pipelines(Seen $seen): void
{
    $r = connectTo();
    $p = $r->pipeline();
    for ($i = 0; $i < 5000; $i++) {
        $p->set("pipe:$i", (string) $i);
        $p->get("pipe:$i");
    }
    $replies = $p->exec();
    for ($i = 0; $i < 5000; $i++) {
        want('GET', $replies[2 * $i + 1], (string) $i);
    }
    $seen->add('replies', count($replies));
    $seen->call('errors', $r, fn () => $r->pipeline()->set('pipe:x', '1')->rawCommand('NOSUCH', 'x')->lPush('pipe:x', '2')->get('pipe:x')->exec());
    $seen->call('mget', $r, fn () => $r->mGet(['pipe:1', 'pipe:2', 'missing', 'pipe:3']));
}

function transactions(Seen $seen): void
{
    $r = connectTo();
    $other = connectTo();
    $seen->call('exec', $r, fn () => $r->multi()->set('{tx}a', '1')->incr('{tx}a')->hSet('{tx}h', 'f', 'v')->hGetAll('{tx}h')->ping()->exec());
    $seen->call('in one go', $r, fn () => $r->multi(Redis::PIPELINE)->set('{tx}b', '1')->incrBy('{tx}b', 41)->exec());
    $seen->call('wrong type', $r, fn () => $r->multi()->lPush('{tx}a', 'x')->incr('{tx}a')->exec());
    $r->multi();
    $r->set('{tx}a', '9');
    $seen->call('discard', $r, fn () => $r->discard());
    foreach ([false, true] as $disturb) {
        $seen->call('watch', $r, fn () => $r->watch('{tx}a'));
        if ($disturb) {
            $other->set('{tx}a', 'other');
        }
        $seen->call('exec', $r, fn () => $r->multi()->set('{tx}a', 'mine')->exec());
    }
    $seen->call('get', $r, fn () => $r->get('{tx}a'));
    $seen->call('unwatch', $r, fn () => $r->unwatch());
}

function pubsub(Seen $seen): void
{
    $r = connectTo();
    $sub = connectTo();
    $pid = later(function (Redis $c) {
        $c->publish('news:1', 'receivers ' . json_encode($c->pubsub('numsub', ['news:1', 'news:2'])));
        $c->publish('news:2', 'hello');
        $c->publish('news:1', 'end');
    });
    subscribed(fn () => $sub->subscribe(['news:1', 'news:2'], function (Redis $sub, string $channel, string $message) use ($seen) {
        $seen->add('message', "$channel $message");
        if ($message === 'end') {
            $seen->add('unsubscribe', $sub->unsubscribe(['news:1', 'news:2']));
            $sub->close();
        }
    }));
    pcntl_waitpid($pid, $status);
    $sub = connectTo();
    $pid = later(function (Redis $c) {
        $c->publish('news:7', 'patterns ' . json_encode($c->pubsub('numpat')));
        $c->publish('news:8', 'end');
    });
    subscribed(fn () => $sub->psubscribe(['news:*'], function (Redis $sub, string $pattern, string $channel, string $message) use ($seen) {
        $seen->add('pmessage', "$pattern $channel $message");
        if ($message === 'end') {
            $seen->add('punsubscribe', $sub->punsubscribe(['news:*']));
            $sub->close();
        }
    }));
    pcntl_waitpid($pid, $status);
    $seen->call('channels', $r, fn () => $r->pubsub('channels', 'none:*'));
}

function blocking(Seen $seen): void
{
    $r = connectTo();
    $both = function (string $what, callable $wait, callable $wake) use ($seen, $r) {
        $pid = later($wake);
        $seen->call($what, $r, $wait);
        pcntl_waitpid($pid, $status);
    };
    $both('blPop', fn () => $r->blPop(['{q}first', '{q}queue'], 5), fn ($c) => $c->rPush('{q}queue', 'job'));
    $both('brPop', fn () => $r->brPop(['{q}queue'], 5), fn ($c) => $c->rPush('{q}queue', 'job'));
    $both('brpoplpush', fn () => $r->brpoplpush('{q}a', '{q}b', 5), fn ($c) => $c->rPush('{q}a', 'push'));
    $both('blmove', fn () => $r->rawCommand('BLMOVE', '{q}a', '{q}b', 'LEFT', 'RIGHT', '5'), fn ($c) => $c->rPush('{q}a', 'move'));
    $both('bzPopMin', fn () => $r->bzPopMin('ranked', 5), fn ($c) => $c->zAdd('ranked', 1.5, 'low'));
    $both('xRead', fn () => $r->xRead(['log' => '$'], 1, 5000), fn ($c) => $c->xAdd('log', '5-1', ['a' => 'b']));
    $r->xGroup('CREATE', 'log', 'readers', '$');
    $both('xReadGroup', fn () => $r->xReadGroup('readers', 'alice', ['log' => '>'], 1, 5000), fn ($c) => $c->xAdd('log', '6-1', ['a' => 'c']));
    $seen->call('timeout', $r, fn () => $r->blPop('empty', 1));
    $seen->add('wait', is_int($r->wait(0, 100)));
}

function scripts(Seen $seen): void
{
    $r = connectTo();
    $seen->call('eval', $r, fn () => $r->eval("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}", ['{s}n', 'arg'], 1));
    $seen->call('no keys', $r, fn () => $r->eval('return 42'));
    $sha = $r->script('load', 'return ARGV[1]');
    $seen->add('load', $sha);
    foreach (['s1', 's2', 's3', 's4'] as $key) {
        $seen->call('evalSha', $r, fn () => $r->evalSha($sha, [$key, $key], 1));
    }
    $seen->call('in a transaction', $r, fn () => $r->multi()->evalSha($sha, ['s1', 'x'], 1)->get('s1')->exec());
    $seen->call('exists', $r, fn () => $r->script('exists', $sha, str_repeat('f', 40)));
    $seen->call('unknown', $r, fn () => $r->evalSha(str_repeat('f', 40)));
    $seen->call('fails', $r, fn () => $r->eval("return redis.call('LPUSH', KEYS[1], 'x')", ['{s}n'], 1));
    $seen->call('syntax', $r, fn () => $r->eval('return return'));
}

function functions(Seen $seen): void
{
    $r = connectTo();
    $code = "#!lua name=php\nredis.register_function('php_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";
    $seen->call('load', $r, fn () => $r->rawCommand('FUNCTION', 'LOAD', 'REPLACE', $code));
    $seen->call('again', $r, fn () => $r->rawCommand('FUNCTION', 'LOAD', $code));
    foreach (['f1', 'f2', 'f3', 'f4'] as $key) {
        $seen->call('fcall', $r, fn () => $r->rawCommand('FCALL', 'php_set', '1', $key, $key));
    }
    $seen->call('list', $r, fn () => $r->rawCommand('FUNCTION', 'LIST', 'LIBRARYNAME', 'php'));
    $seen->call('delete', $r, fn () => $r->rawCommand('FUNCTION', 'DELETE', 'php'));
}

function scan(Seen $seen): void
{
    $r = connectTo();
    $r->setOption(Redis::OPT_SCAN, (string) Redis::SCAN_RETRY);
    $p = $r->pipeline();
    for ($i = 0; $i < 1000; $i++) {
        $p->set("scan:$i", 'x');
        $p->hSet('scanned', "field:$i", 'x');
    }
    $p->exec();
    $found = [];
    $cursor = null;
    while (($keys = $r->scan($cursor, 'scan:*', 77)) !== false) {
        foreach ($keys as $key) {
            $found[$key] = true;
        }
    }
    $seen->add('keys', count($found));
    $found = [];
    $cursor = null;
    while (($keys = $r->scan($cursor, '*', 500, 'hash')) !== false) {
        array_push($found, ...$keys);
    }
    sort($found);
    $seen->add('hashes', $found);
    $fields = [];
    $cursor = null;
    while (($some = $r->hScan('scanned', $cursor, '', 100)) !== false) {
        $fields += $some;
    }
    $seen->add('fields', count($fields));
    $keys = $r->keys('scan:99*');
    sort($keys);
    $seen->add('matched', $keys);
}

function values(Seen $seen): void
{
    $r = connectTo();
    $big = str_repeat('0123456789abcdef', 1 << 20);
    $seen->call('set', $r, fn () => $r->set('big', $big));
    $seen->add('16 MiB are the same', $r->get('big') === $big);
    $binary = "\x00\r\n$-1\r\n\xff";
    $seen->call('set', $r, fn () => $r->set($binary, $binary));
    $seen->add('binary', $r->get($binary) === $binary);
    $many = [];
    for ($i = 0; $i < 10; $i++) {
        $many["big:$i"] = substr($big, 0, 1 << 18);
    }
    $seen->call('mset', $r, fn () => $r->mSet($many));
    $seen->add('mget', array_map('strlen', $r->mGet(array_keys($many))));
    $seen->call('del', $r, fn () => $r->del('big', $binary));
    $php = connectTo();
    $php->setOption(Redis::OPT_SERIALIZER, (string) Redis::SERIALIZER_PHP);
    $php->set('serialized', ['a' => [1, 2.5, null, true]]);
    $seen->add('serialized', $php->get('serialized'));
}

function client(Seen $seen): void
{
    $r = connectTo();
    $victim = connectTo();
    $victim->client('setname', 'victim');
    $id = $victim->rawCommand('CLIENT', 'ID');
    $seen->add('listed', count(array_filter($r->client('list'), fn ($c) => $c['name'] === 'victim')));
    $seen->call('kill', $r, fn () => $r->rawCommand('CLIENT', 'KILL', 'ID', (string) $id));
    // It connects and logs in again on its own.
    $seen->call('again', $victim, fn () => $victim->ping());
    $id = $victim->rawCommand('CLIENT', 'ID');
    foreach (['TIMEOUT', 'ERROR'] as $how) {
        $pid = later(fn ($c) => $c->rawCommand('CLIENT', 'UNBLOCK', (string) $id, $how));
        $seen->call('unblocked', $victim, fn () => $victim->blPop('nothing', 5));
        pcntl_waitpid($pid, $status);
    }
}

function acl(Seen $seen): void
{
    $r = connectTo();
    $seen->call('whoami', $r, fn () => $r->acl('WHOAMI'));
    $seen->call('setuser', $r, fn () => $r->acl('SETUSER', 'php', 'reset', 'on', '>secret', '~app:*', '&app:*', '+@all', '-@dangerous'));
    $user = connectTo(['php', 'secret']);
    $seen->call('whoami', $user, fn () => $user->acl('WHOAMI'));
    $seen->call('own key', $user, fn () => $user->set('app:key', 'x'));
    $seen->call('other key', $user, fn () => $user->set('key', 'x'));
    $seen->call('dangerous', $user, fn () => $user->flushAll());
    $seen->call('deluser', $r, fn () => $r->acl('DELUSER', 'php'));
}

function steps(string $file): void
{
    $sections = [];
    $name = '';
    foreach (file($file, FILE_IGNORE_NEW_LINES | FILE_SKIP_EMPTY_LINES) as $line) {
        if ($line[0] === '[') {
            $name = trim($line, '[]');
        } elseif ($line[0] !== '#') {
            $sections[$name][] = $line;
        }
    }
    $r = connectTo();
    foreach ($sections as $name => $lines) {
        check($name, function (Seen $seen) use ($lines, $r) {
            foreach ($lines as $line) {
                $seen->call("$line:", $r, fn () => $r->rawCommand(...explode(' ', $line)));
            }
        });
    }
}

/** What goes on while servers die: package program, failover.go, says what must hold. */
final class Course
{
    private string $name;
    private int $calls = 0;
    private int $errors = 0;
    private int $back = 0;
    private float $gap = 0;
    private string $said = '';
    private Redis $r;

    public function __construct()
    {
        $this->name = 'failover:php:' . posix_getpid() . ':';
    }

    private function client(): Redis
    {
        $deadline = microtime(true) + 10;
        while (true) {
            try {
                $r = connectTo();
                $r->setOption(Redis::OPT_MAX_RETRIES, '20');
                $r->setOption(Redis::OPT_BACKOFF_ALGORITHM, (string) Redis::BACKOFF_ALGORITHM_DEFAULT);
                $r->setOption(Redis::OPT_BACKOFF_BASE, '20');
                $r->setOption(Redis::OPT_BACKOFF_CAP, '500');
                return $r;
            } catch (RedisException $e) {
                if (microtime(true) > $deadline) {
                    throw $e;
                }
                usleep(20000);
            }
        }
    }

    private function failure(string $text): void
    {
        $this->errors++;
        $this->said = oneLine($text);
        usleep(20000);
        // After its last attempt to reconnect a Redis gives up for good.
        if (!$this->r->isConnected()) {
            $this->r = $this->client();
        }
    }

    /** fork runs a loop in another process, which ends with status 0 when all was well. */
    private function fork(callable $loop): int
    {
        $pid = pcntl_fork();
        if ($pid === 0) {
            $status = 0;
            try {
                $loop();
            } catch (Throwable $e) {
                fwrite(STDERR, '# ' . get_class($e) . ' ' . oneLine($e->getMessage()) . "\n");
                $status = 1;
            }
            exit($status);
        }
        return $pid;
    }

    private function pop(): void
    {
        $this->r = $this->client();
        while (true) {
            $begin = microtime(true);
            try {
                $got = $this->r->blPop($this->name . 'list', 1);
                want('BLPOP for a second took less than 5 s', microtime(true) - $begin < 5, true);
            } catch (RedisException $e) {
                $this->failure($e->getMessage());
                continue;
            }
            if (!is_array($got) || $got === []) {
                continue;
            }
            if ($got[1] === 'last') {
                return;
            }
            want('the list', $got[0], $this->name . 'list');
            want('an item of the list: ' . $got[1], str_starts_with($got[1], 'item='), true);
        }
    }

    /** A lost subscription is an exception; the application subscribes again. */
    private function listen(): void
    {
        $last = false;
        while (!$last) {
            try {
                $this->r = $this->client();
                $this->r->setOption(Redis::OPT_READ_TIMEOUT, '-1');
                $this->r->subscribe([$this->name . 'channel'], function (Redis $r, string $channel, string $message) use (&$last) {
                    if ($message === 'last') {
                        $last = true;
                        $r->close();
                        return;
                    }
                    want('a message: ' . $message, str_starts_with($message, 'news='), true);
                });
            } catch (RedisException $e) {
                $this->failure($e->getMessage());
            }
        }
    }

    private function ok(mixed $value): mixed
    {
        $error = $this->r->getLastError();
        if ($error !== null) {
            $this->r->clearLastError();
            throw new RedisException($error);
        }
        return $value;
    }

    private function write(): void
    {
        $before = 0;
        $good = microtime(true);
        stream_set_blocking(STDIN, false);
        for ($i = 1; fgets(STDIN) === false && !feof(STDIN); $i++) {
            $key = $this->name . ($i % 12);
            try {
                $this->calls += 3;
                $this->ok($this->r->set($key, "$key=$i"));
                $value = $this->ok($this->r->get($key));
                if (is_string($value)) {
                    [$of, $number] = explode('=', $value) + ['', ''];
                    want("GET $key: $value after $i were set", $of === $key && (int) $number <= $i, true);
                }
                $n = $this->ok($this->r->incr($this->name . 'counter'));
                want("INCR: $n after $i calls", is_int($n) && $n >= 1 && $n <= $i + 100, true);
                if ($n <= $before) {
                    $this->back++;
                }
                $before = $n;
                if ($i % 10 === 0) {
                    $this->ok($this->r->rPush($this->name . 'list', "item=$i"));
                    $this->ok($this->r->publish($this->name . 'channel', "news=$i"));
                }
                $this->gap = max($this->gap, microtime(true) - $good);
                $good = microtime(true);
            } catch (RedisException $e) {
                $this->failure($e->getMessage());
            }
            usleep(5000);
        }
    }

    private function exact(): bool
    {
        try {
            for ($i = 0; $i < 12; $i++) {
                $this->ok($this->r->set($this->name . $i, "end=$i"));
            }
            for ($i = 0; $i < 12; $i++) {
                want("GET of key $i", $this->ok($this->r->get($this->name . $i)), "end=$i");
            }
            $n = $this->ok($this->r->incr($this->name . 'counter'));
            for ($i = 1; $i <= 10; $i++) {
                want('INCR', $this->ok($this->r->incr($this->name . 'counter')), $n + $i);
            }
            return true;
        } catch (RedisException $e) {
            $this->failure($e->getMessage());
            return false;
        }
    }

    private function ended(int $pid, string $what, callable $send): void
    {
        $deadline = microtime(true) + 10;
        while (microtime(true) < $deadline) {
            try {
                $send();
            } catch (RedisException $e) {
                $this->failure($e->getMessage());
            }
            usleep(300000);
            if (pcntl_waitpid($pid, $status, WNOHANG) === $pid) {
                want("$what: status", pcntl_wexitstatus($status), 0);
                return;
            }
        }
        throw new RuntimeException("$what: not within 10 s");
    }

    public function run(): void
    {
        $popping = $this->fork(fn () => $this->pop());
        $listening = $this->fork(fn () => $this->listen());
        $this->r = $this->client();
        echo "# ready\n";
        $this->write();
        try {
            $deadline = microtime(true) + 10;
            while (!$this->exact()) {
                want('one SET, GET and INCR after another within 10 s', microtime(true) < $deadline, true);
            }
            $this->ended($popping, 'the last item arrives', fn () => $this->r->rPush($this->name . 'list', 'last'));
            $this->ended($listening, 'the last message arrives', fn () => $this->r->publish($this->name . 'channel', 'last'));
        } finally {
            printf("# failover: %d calls, %d errors (last: %s), counter went back %d times, longest time without success %dms\n",
                $this->calls, $this->errors, $this->said, $this->back, $this->gap * 1000);
        }
        want('the counter went back at most 3 times', $this->back <= 3, true);
    }
}

if ($mode === 'failover') {
    check('failover', fn () => (new Course())->run());
} else {
    foreach (['connect', 'pipelines', 'transactions', 'pubsub', 'blocking', 'scripts', 'functions', 'scan', 'values', 'client', 'acl'] as $name) {
        check($name, $name);
    }
    echo "none tracking RESP2 only\n";
    steps($argv[4]);
}
exit($failed ? 1 : 0);
