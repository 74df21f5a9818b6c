// Exercises an endpoint with node-redis in RESP3, with its client-side cache.
import { createClient, defineScript, ErrorReply, MultiErrorReply, WatchError } from 'redis';
import { check, eventually, finish, host, later, mode, password, port, repliesAre, sleep, steps, survive, want } from './report.mjs';

repliesAre((e) => e instanceof ErrorReply || e instanceof WatchError || e instanceof MultiErrorReply);

const create = (more = {}) => {
  const c = createClient({ socket: { host, port: Number(port), reconnectStrategy: (n) => Math.min(20 * (n + 1), 500) }, password, RESP: 3, unstableResp3: true, ...more });
  c.on('error', () => {}); // each command tells its own error
  return c;
};
const connectTo = (more) => create(more).connect();

const connect = async (seen) => {
  const c = await connectTo();
  await seen.call('flushall', c.flushAll());
  for (const RESP of [2, 3]) {
    const named = await connectTo({ RESP, name: 'named', username: 'default', database: 1 });
    await seen.call('name', named.clientGetName());
    const info = await named.clientInfo();
    seen.add('database', info.db);
    const hello = await named.hello();
    seen.add('proto', hello.proto);
    seen.add('mode', hello.mode);
  }
  await seen.call('ping', c.ping());
  await seen.call('echo', c.echo('hello'));
  const stranger = create({ password: 'wrong', socket: { host, port: Number(port), reconnectStrategy: false } });
  await seen.call('wrong password', stranger.connect().then(() => 'connected'));
};

const pipelines = async (seen) => {
  const c = await connectTo();
  // What is sent in one turn of the loop is one pipeline.
  const numbers = [...Array(5000).keys()];
  const replies = await Promise.allSettled(numbers.flatMap((i) => [
    c.set(`pipe:${i}`, `${i}`), c.get(`pipe:${i}`), ...(i % 1000 === 500 ? [c.sendCommand(['NOSUCH', 'x'])] : []),
  ]));
  const good = replies.filter((r) => r.status === 'fulfilled').map((r) => r.value);
  want('GETs', good.filter((_, i) => i % 2 === 1), numbers);
  seen.add('errors', replies.filter((r) => r.status === 'rejected').map((r) => r.reason.message));
  await seen.call('as pipeline', c.multi().set('pipe:x', '1').get('pipe:x').mGet(['pipe:1', 'pipe:2']).execAsPipeline());
};

const transactions = async (seen) => {
  const c = await connectTo(), other = await connectTo();
  await seen.call('exec', c.multi().set('{tx}a', '1').incr('{tx}a').hSet('{tx}h', 'f', 'v').hGetAll('{tx}h').ping().exec());
  await seen.call('bad', c.multi().set('{tx}a', '9').addCommand(['SET', '{tx}a']).exec());
  await seen.call('wrong type', c.multi().lPush('{tx}a', 'x').incr('{tx}a').exec().catch((e) => {
    if (!(e instanceof MultiErrorReply)) throw e;
    return [e.message, e.replies.map((r) => (r instanceof Error ? r.message : r))];
  }));
  for (const disturb of [false, true]) {
    await seen.call('watch', c.watch('{tx}a'));
    if (disturb) await other.set('{tx}a', 'other');
    await seen.call('exec', c.multi().set('{tx}a', 'mine').exec());
  }
  await seen.call('get', c.get('{tx}a'));
  await seen.call('unwatch', c.unwatch());
};

const pubsub = async (seen) => {
  const c = await connectTo(), sub = await connectTo();
  const got = [];
  const take = async (what, n) => {
    await eventually(5000, () => got.length >= n);
    want(what, got.length, n);
    seen.add(what, got.splice(0, n).sort());
  };
  await sub.subscribe(['news:1', 'news:2'], (message, channel) => got.push(`message ${channel} ${message}`));
  await sub.pSubscribe('news:*', (message, channel) => got.push(`pmessage ${channel} ${message}`));
  await sub.sSubscribe('{shard}news', (message, channel) => got.push(`smessage ${channel} ${message}`));
  await seen.call('publish', c.publish('news:1', 'hello'));
  await take('messages', 2);
  await seen.call('spublish', c.sPublish('{shard}news', 'hello'));
  await take('shard message', 1);
  // In RESP3 a subscribed connection still serves commands.
  await seen.call('set', sub.set('subscribed', 'x'));
  await seen.call('ping', sub.ping());
  await seen.call('numsub', c.pubSubNumSub(['news:1', 'news:2', 'none']));
  await seen.call('numpat', c.pubSubNumPat());
  await sub.unsubscribe('news:1');
  await seen.call('numsub', c.pubSubNumSub(['news:1', 'news:2']));
  await sub.pUnsubscribe('news:*');
  await sub.sUnsubscribe('{shard}news');
  await sub.unsubscribe('news:2');
  await seen.call('numsub', c.pubSubNumSub(['news:1', 'news:2']));
};

const blocking = async (seen) => {
  const c = await connectTo(), other = await connectTo();
  const both = async (what, wait, wake) => {
    const woken = later(wake);
    await seen.call(what, wait());
    await woken;
  };
  await both('blPop', () => c.blPop(['{q}first', '{q}queue'], 5), () => other.rPush('{q}queue', 'job'));
  await both('blMove', () => c.blMove('{q}a', '{q}b', 'LEFT', 'RIGHT', 5), () => other.rPush('{q}a', 'move'));
  await both('bzPopMin', () => c.bzPopMin('ranked', 5), () => other.zAdd('ranked', { score: 1.5, value: 'low' }));
  await both('blmPop', () => c.blmPop(5, ['{q}l', '{q}m'], 'LEFT', { COUNT: 10 }), () => other.rPush('{q}m', ['x', 'y']));
  await both('xRead', () => c.xRead({ key: 'log', id: '$' }, { BLOCK: 5000 }), () => other.xAdd('log', '5-1', { a: 'b' }));
  await c.xGroupCreate('log', 'readers', '$');
  await both('xReadGroup', () => c.xReadGroup('readers', 'alice', { key: 'log', id: '>' }, { BLOCK: 5000 }), () => other.xAdd('log', '6-1', { a: 'c' }));
  await seen.call('timeout', c.blPop('empty', 0.2));
  seen.add('behind', await Promise.all([c.blPop('empty', 0.2), c.set('behind', 'x'), c.get('behind')]));
};

const scripts = async (seen) => {
  const bump = defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: "return {KEYS[1], redis.call('INCRBY', KEYS[1], ARGV[1])}",
    parseCommand(parser, key, by) {
      parser.pushKey(key);
      parser.push(String(by));
    },
    transformReply: undefined,
  });
  const c = await connectTo({ scripts: { bump } });
  for (const key of ['s1', 's2', 's3', 's4']) {
    await seen.call('defined', c.bump(key, 7));
    await seen.call('again', c.bump(key, 7));
  }
  await seen.call('in a transaction', c.multi().bump('s1', 1).get('s1').exec());
  await seen.call('no keys', c.eval('return 42'));
  await seen.call('a map', c.eval("redis.setresp(3); return redis.call('HGETALL', KEYS[1])", { keys: ['{tx}h'] }));
  await seen.call('double', c.eval('return {double=3.25}'));
  const sha = await c.scriptLoad('return ARGV[1]');
  seen.add('load', sha);
  for (const key of ['s1', 's2', 's3', 's4']) await seen.call('evalsha', c.evalSha(sha, { keys: [key], arguments: [key] }));
  await seen.call('exists', c.scriptExists([sha, 'f'.repeat(40)]));
  await seen.call('unknown', c.evalSha('f'.repeat(40)));
  await seen.call('fails', c.eval("return redis.call('LPUSH', KEYS[1], 'x')", { keys: ['s1'] }));
};

const functions = async (seen) => {
  const c = await connectTo();
  const code = "#!lua name=noderedis\nredis.register_function('noderedis_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";
  await seen.call('load', c.functionLoad(code, { REPLACE: true }));
  await seen.call('again', c.functionLoad(code));
  for (const key of ['f1', 'f2', 'f3', 'f4']) await seen.call('fcall', c.fCall('noderedis_set', { keys: [key], arguments: [key] }));
  await seen.call('list', c.functionListWithCode({ LIBRARYNAME: 'noderedis' }));
  await seen.call('stats', c.functionStats());
  await seen.call('delete', c.functionDelete('noderedis'));
};

const scan = async (seen) => {
  const c = await connectTo();
  await Promise.all([...Array(1000).keys()].flatMap((i) => [c.set(`scan:${i}`, `${i}`), c.sAdd('scanned', `member:${i}`)]));
  const collect = async (pages) => {
    const all = [];
    for await (const some of pages) all.push(...some);
    return all;
  };
  seen.add('keys', new Set(await collect(c.scanIterator({ MATCH: 'scan:*', COUNT: 83 }))).size);
  seen.add('sets', (await collect(c.scanIterator({ TYPE: 'set', COUNT: 500 }))).sort());
  seen.add('members', new Set(await collect(c.sScanIterator('scanned'))).size);
  await seen.call('matched', c.keys('scan:99*').then((keys) => keys.sort()));
};

const values = async (seen) => {
  const c = await connectTo();
  const big = '0123456789abcdef'.repeat(1 << 20);
  await seen.call('set', c.set('big', big));
  seen.add('16 MiB are the same', (await c.get('big')) === big);
  await seen.call('mSet', c.mSet(Object.fromEntries([...Array(10).keys()].map((i) => [`big:${i}`, big.slice(0, 1 << 18)]))));
  seen.add('mGet', (await c.mGet([...Array(10).keys()].map((i) => `big:${i}`))).map((v) => v.length));
  await seen.call('del', c.del('big'));
};

const client = async (seen) => {
  const c = await connectTo(), victim = await connectTo({ name: 'victim' });
  let id = await victim.clientId();
  seen.add('listed', (await c.clientList()).filter((one) => one.name === 'victim').length);
  const closed = new Promise((told) => victim.once('error', told));
  await seen.call('kill', c.clientKill({ filter: 'ID', id }));
  await closed;
  await seen.call('again', victim.ping());
  await seen.call('its name', victim.clientGetName());
  id = await victim.clientId();
  const unblocked = later(() => c.sendCommand(['CLIENT', 'UNBLOCK', `${id}`, 'ERROR']));
  await seen.call('unblocked', victim.blPop('nothing', 5));
  await unblocked;
};

const acl = async (seen) => {
  const c = await connectTo();
  await seen.call('whoami', c.aclWhoAmI());
  await seen.call('setuser', c.aclSetUser('noderedis', ['reset', 'on', '>secret', '~app:*', '&app:*', '+@all', '-@dangerous']));
  const made = await c.aclGetUser('noderedis');
  seen.add('getuser', [made.flags, made.keys, made.channels, made.commands]);
  const user = await connectTo({ username: 'noderedis', password: 'secret' });
  await seen.call('whoami', user.aclWhoAmI());
  await seen.call('own key', user.set('app:key', 'x'));
  await seen.call('other key', user.set('key', 'x'));
  await seen.call('dangerous', user.flushAll());
  await seen.call('deluser', c.aclDelUser('noderedis'));
};

const tracking = async (seen) => {
  const c = await connectTo();
  const cached = await connectTo({ clientSideCache: { ttl: 0, maxEntries: 100 } });
  const keys = ['cached:1', 'cached:2', 'cached:3', 'cached:4'];
  const gets = () => Promise.all(keys.map((key) => cached.get(key)));
  for (const key of keys) await c.set(key, 'old');
  want('before', await gets(), keys.map(() => 'old'));
  want('cached', await gets(), keys.map(() => 'old'));
  seen.add('tracked', (await cached.clientTrackingInfo()).flags);
  for (const key of keys) await c.set(key, 'new');
  want('invalidated', await eventually(2000, async () => (await gets()).every((v) => v === 'new')), true);
  const pushed = await connectTo();
  await seen.call('on', pushed.clientTracking(true, { BCAST: true, PREFIX: ['cached:'], NOLOOP: true }));
  await seen.call('info', pushed.clientTrackingInfo());
  await seen.call('off', pushed.clientTracking(false));
};

if (mode === 'failover') {
  const socket = { host, port: Number(port), connectTimeout: 1000, reconnectStrategy: (n) => Math.min(20 * (n + 1), 500) };
  const c = await connectTo({ socket }), blocked = await connectTo({ socket }), sub = await connectTo({ socket });
  await check('failover', () => survive('noderedis', {
    set: (k, v) => c.set(k, v),
    get: (k) => c.get(k),
    incr: (k) => c.incr(k),
    push: (k, v) => c.rPush(k, v),
    publish: (k, v) => c.publish(k, v),
    pop: async (k) => (await blocked.blPop(k, 1))?.element ?? null,
    subscribe: (channel, got) => sub.subscribe(channel, got),
  }));
} else {
  for (const feature of [connect, pipelines, transactions, pubsub, blocking, scripts, functions, scan, values, client, acl, tracking]) {
    await check(feature.name, feature);
  }
  const c = await connectTo();
  await steps((words) => c.sendCommand(words));
}
await sleep(10);
finish();
