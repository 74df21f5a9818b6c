// Exercises an endpoint with ioredis (RESP2).
import Redis from 'ioredis';
import { check, eventually, finish, host, later, mode, none, password, port, repliesAre, sleep, steps, survive, want } from './report.mjs';

repliesAre((e) => e.name === 'ReplyError' || e.name === 'EXECABORT');

const connectTo = (more = {}) => {
  const c = new Redis({ host, port: Number(port), password, ...more });
  c.on('error', () => {}); // each command tells its own error
  return c;
};

const connect = async (seen) => {
  const c = connectTo();
  await seen.call('flushall', c.flushall());
  const named = connectTo({ connectionName: 'named', username: 'default', db: 1 });
  await seen.call('name', named.client('GETNAME'));
  await seen.call('database', named.client('INFO').then((text) => text.includes(' db=1 ')));
  const hello = await named.call('HELLO', '2', 'AUTH', 'default', password, 'SETNAME', 'renamed');
  seen.add('proto', hello[hello.indexOf('proto') + 1]);
  await seen.call('renamed', named.client('GETNAME'));
  await seen.call('ping', c.ping('hello'));
  const stranger = connectTo({ password: 'wrong', retryStrategy: null });
  const refused = new Promise((told) => stranger.once('error', told));
  await stranger.ping().catch(() => {});
  seen.add('wrong password', (await refused).message);
};

const pipelines = async (seen) => {
  const c = connectTo();
  const p = c.pipeline();
  for (let i = 0; i < 5000; i++) {
    p.set(`pipe:${i}`, i).get(`pipe:${i}`);
    if (i % 1000 === 500) p.call('NOSUCH', 'x');
  }
  const replies = await p.exec();
  const values = replies.filter(([e]) => e === null).map(([, v]) => v);
  want('GETs', values.filter((_, i) => i % 2 === 1), [...Array(5000).keys()]);
  seen.add('errors', replies.filter(([e]) => e !== null).map(([e]) => e.message));
  const auto = connectTo({ enableAutoPipelining: true });
  const some = await Promise.all([...Array(500).keys()].map((i) => auto.get(`pipe:${i}`)));
  want('automatic pipeline', some, [...Array(500).keys()]);
};

const transactions = async (seen) => {
  const c = connectTo(), other = connectTo();
  await seen.call('exec', c.multi().set('{tx}a', 1).incr('{tx}a').hset('{tx}h', 'f', 'v').hgetall('{tx}h').ping().exec());
  await seen.call('bad', c.multi().set('{tx}a', 9).call('SET', '{tx}a').exec());
  await seen.call('wrong type', c.multi().lpush('{tx}a', 'x').incr('{tx}a').exec());
  for (const step of [['multi', { pipeline: false }], ['set', '{tx}a', 9], ['discard'], ['get', '{tx}a']]) {
    await seen.call(step[0], c[step[0]](...step.slice(1)));
  }
  for (const disturb of [false, true]) {
    await seen.call('watch', c.watch('{tx}a'));
    if (disturb) await other.set('{tx}a', 'other');
    await seen.call('exec', c.multi().set('{tx}a', 'mine').exec());
  }
  await seen.call('get', c.get('{tx}a'));
  await seen.call('unwatch', c.unwatch());
};

const pubsub = async (seen) => {
  const c = connectTo(), sub = connectTo();
  const got = [];
  const take = async (what, n) => {
    await eventually(5000, () => got.length >= n);
    want(what, got.length, n);
    seen.add(what, got.splice(0, n).sort());
  };
  sub.on('message', (...m) => got.push(['message', ...m].join(' ')));
  sub.on('pmessage', (...m) => got.push(['pmessage', ...m].join(' ')));
  sub.on('smessage', (...m) => got.push(['smessage', ...m].join(' ')));
  await seen.call('subscribe', sub.subscribe('news:1', 'news:2'));
  await seen.call('psubscribe', sub.psubscribe('news:*'));
  await seen.call('ssubscribe', sub.ssubscribe('{shard}news'));
  await seen.call('publish', c.publish('news:1', 'hello'));
  await take('messages', 2);
  await seen.call('spublish', c.spublish('{shard}news', 'hello'));
  await take('shard message', 1);
  await seen.call('ping', sub.ping());
  await seen.call('numsub', c.pubsub('NUMSUB', 'news:1', 'news:2', 'none'));
  await seen.call('shardchannels', c.pubsub('SHARDCHANNELS', '{shard}*'));
  await seen.call('unsubscribe', sub.unsubscribe('news:1'));
  await seen.call('others', sub.unsubscribe('news:2'));
  await seen.call('punsubscribe', sub.punsubscribe('news:*'));
  await seen.call('sunsubscribe', sub.sunsubscribe('{shard}news'));
  await seen.call('free again', sub.get('missing'));
};

const blocking = async (seen) => {
  const c = connectTo(), other = connectTo();
  const both = async (what, wait, wake) => {
    const woken = later(wake);
    await seen.call(what, wait());
    await woken;
  };
  await both('blpop', () => c.blpop('{q}first', '{q}queue', 5), () => other.rpush('{q}queue', 'job'));
  await both('brpoplpush', () => c.brpoplpush('{q}a', '{q}b', 5), () => other.rpush('{q}a', 'push'));
  await both('blmove', () => c.blmove('{q}a', '{q}b', 'LEFT', 'RIGHT', 5), () => other.rpush('{q}a', 'move'));
  await both('bzpopmin', () => c.bzpopmin('ranked', 5), () => other.zadd('ranked', 1.5, 'low'));
  await both('bzmpop', () => c.bzmpop(5, 1, 'ranked', 'MAX'), () => other.zadd('ranked', 1.5, 'low'));
  await both('blmpop', () => c.blmpop(5, 2, '{q}l', '{q}m', 'LEFT', 'COUNT', 10), () => other.rpush('{q}m', 'x', 'y'));
  await both('xread', () => c.xread('BLOCK', 5000, 'STREAMS', 'log', '$'), () => other.xadd('log', '5-1', 'a', 'b'));
  await c.xgroup('CREATE', 'log', 'readers', '$');
  await both('xreadgroup', () => c.xreadgroup('GROUP', 'readers', 'alice', 'BLOCK', 5000, 'STREAMS', 'log', '>'), () => other.xadd('log', '6-1', 'a', 'c'));
  await seen.call('timeout', c.blpop('empty', 0.2));
  // What is written behind a blocked command waits for it.
  const order = await Promise.all([c.blpop('empty', 0.2), c.set('behind', 'x'), c.get('behind')]);
  seen.add('behind', order);
};

const scripts = async (seen) => {
  const c = connectTo();
  c.defineCommand('bump', { numberOfKeys: 1, lua: "return {KEYS[1], redis.call('INCRBY', KEYS[1], ARGV[1])}" });
  for (const key of ['s1', 's2', 's3', 's4']) {
    await seen.call('defined', c.bump(key, 7));
    await seen.call('again', c.bump(key, 7));
  }
  await seen.call('in a pipeline', c.pipeline().bump('s1', 1).get('s1').exec());
  await seen.call('in a transaction', c.multi().bump('s1', 1).get('s1').exec());
  await seen.call('no keys', c.eval('return 42', 0));
  const sha = await c.script('LOAD', 'return ARGV[1]');
  seen.add('load', sha);
  for (const key of ['s1', 's2', 's3', 's4']) await seen.call('evalsha', c.evalsha(sha, 1, key, key));
  await seen.call('exists', c.script('EXISTS', sha, 'f'.repeat(40)));
  await seen.call('unknown', c.evalsha('f'.repeat(40), 0));
  await seen.call('fails', c.eval("return redis.call('LPUSH', KEYS[1], 'x')", 1, 's1'));
};

const functions = async (seen) => {
  const c = connectTo();
  const code = "#!lua name=ioredis\nredis.register_function('ioredis_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";
  await seen.call('load', c.function('LOAD', 'REPLACE', code));
  await seen.call('again', c.function('LOAD', code));
  for (const key of ['f1', 'f2', 'f3', 'f4']) await seen.call('fcall', c.fcall('ioredis_set', 1, key, key));
  await seen.call('list', c.function('LIST', 'LIBRARYNAME', 'ioredis'));
  await seen.call('delete', c.function('DELETE', 'ioredis'));
};

const scan = async (seen) => {
  const c = connectTo();
  const p = c.pipeline();
  for (let i = 0; i < 1000; i++) p.set(`scan:${i}`, i).hset('scanned', `field:${i}`, i);
  await p.exec();
  const collect = async (stream) => {
    const all = [];
    for await (const some of stream) all.push(...some);
    return all;
  };
  seen.add('keys', new Set(await collect(c.scanStream({ match: 'scan:*', count: 71 }))).size);
  seen.add('hashes', (await collect(c.scanStream({ type: 'hash', count: 500 }))).sort());
  seen.add('fields', new Set(await collect(c.hscanStream('scanned', { match: 'field:*' }))).size);
  await seen.call('matched', c.keys('scan:99*').then((keys) => keys.sort()));
};

const values = async (seen) => {
  const c = connectTo();
  const big = Buffer.alloc(16 << 20, '0123456789abcdef');
  await seen.call('set', c.set('big', big));
  seen.add('16 MiB are the same', big.equals(await c.getBuffer('big')));
  const binary = Buffer.from('00 0d 0a 24 2d 31 0d 0a ff'.replaceAll(' ', ''), 'hex');
  await seen.call('set', c.set(binary, binary));
  seen.add('binary', binary.equals(await c.getBuffer(binary)));
  await seen.call('del', c.del('big', binary));
};

const client = async (seen) => {
  const c = connectTo(), victim = connectTo({ connectionName: 'victim' });
  let id = await victim.client('ID');
  seen.add('listed', (await c.client('LIST')).split(' name=victim ').length - 1);
  const closed = new Promise((told) => victim.once('close', told));
  await seen.call('kill', c.client('KILL', 'ID', id));
  await closed;
  await seen.call('again', victim.ping());
  await seen.call('its name', victim.client('GETNAME'));
  id = await victim.client('ID');
  const unblocked = later(() => c.client('UNBLOCK', id, 'ERROR'));
  await seen.call('unblocked', victim.blpop('nothing', 5));
  await unblocked;
  await seen.call('pause', c.client('PAUSE', 200, 'WRITE'));
  const begin = Date.now();
  await seen.call('set', victim.set('paused', 'x'));
  seen.add('it waited', Date.now() - begin > 100);
};

const acl = async (seen) => {
  const c = connectTo();
  await seen.call('whoami', c.acl('WHOAMI'));
  await seen.call('setuser', c.acl('SETUSER', 'ioredis', 'reset', 'on', '>secret', '~app:*', '&app:*', '+@all', '-@dangerous'));
  const user = connectTo({ username: 'ioredis', password: 'secret', enableReadyCheck: false });
  await seen.call('whoami', user.acl('WHOAMI'));
  await seen.call('own key', user.set('app:key', 'x'));
  await seen.call('other key', user.set('key', 'x'));
  await seen.call('dangerous', user.flushall());
  await seen.call('in a transaction', user.multi().set('app:key', 'y').set('key', 'y').exec());
  await seen.call('deluser', c.acl('DELUSER', 'ioredis'));
};

if (mode === 'failover') {
  // A few more retries than usual, and one connection for each kind of use.
  const more = { maxRetriesPerRequest: 50, connectTimeout: 1000 };
  const c = connectTo(more), blocked = connectTo(more), sub = connectTo(more);
  await check('failover', () => survive('ioredis', {
    set: (k, v) => c.set(k, v),
    get: (k) => c.get(k),
    incr: (k) => c.incr(k),
    push: (k, v) => c.rpush(k, v),
    publish: (k, v) => c.publish(k, v),
    pop: async (k) => (await blocked.blpop(k, 1))?.[1] ?? null,
    subscribe: async (channel, got) => {
      sub.on('message', (_, message) => got(message));
      await sub.subscribe(channel);
    },
  }));
} else {
  for (const feature of [connect, pipelines, transactions, pubsub, blocking, scripts, functions, scan, values, client, acl]) {
    await check(feature.name, feature);
  }
  none('tracking', 'RESP2 only');
  const c = connectTo();
  await steps(([name, ...args]) => c.call(name, ...args));
}
await sleep(10);
finish();
