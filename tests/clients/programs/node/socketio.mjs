// Two socket.io servers, each with an endpoint of its own, as one: what one asks of
// the sockets and servers of both, it gets from both. Prints a line for each thing.
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import Redis from 'ioredis';
import { Server } from 'socket.io';
import { io as connect } from 'socket.io-client';

const [host, ...ports] = process.argv.slice(2);
const password = process.env.REDIS_PASSWORD;
const say = (what, seen) => console.log(`${what}: ${JSON.stringify(seen)}`);
const failed = (e) => `error: ${e.message}`;

// result is what a promise becomes, or what went wrong.
const result = (promise, of = (v) => v) => promise.then(of, failed);

async function node(port, name, makeAdapter) {
  const clients = [0, 1].map(() => new Redis({ host, port: Number(port), password }));
  await Promise.all(clients.map((c) => {
    c.on('error', () => {}); // each request tells its own error
    return new Promise((done) => c.once('ready', done));
  }));
  const http = createServer();
  const io = new Server(http, { adapter: makeAdapter(...clients) });
  io.on('connection', (socket) => {
    socket.join(['all', `at-${name}`]);
    socket.data.at = name;
  });
  io.on('which', (done) => done(name));
  await new Promise((done) => http.listen(0, '127.0.0.1', done));
  const sockets = [];
  for (let i = 0; i < 3; i++) {
    const socket = connect(`http://127.0.0.1:${http.address().port}`, { transports: ['websocket'], forceNew: true });
    socket.seen = [];
    socket.on('n', (n) => socket.seen.push(n));
    socket.on('question', (done) => done(`${name}${i}`));
    await new Promise((done) => socket.once('connect', done));
    sockets.push(socket);
  }
  return {
    io, sockets, name,
    async end() {
      for (const s of sockets) s.disconnect();
      await new Promise((done) => io.close(done));
      for (const c of clients) c.disconnect();
    },
  };
}

async function run(kind, makeAdapter) {
  const nodes = [await node(ports[0], 'a', makeAdapter), await node(ports[1], 'b', makeAdapter)];
  // Servers learn of each other within moments of their start.
  for (let i = 0; i < 100; i++) {
    const counts = await Promise.all(nodes.map((n) => result(n.io.of('/').adapter.serverCount())));
    if (counts.every((n) => n >= 2)) break;
    await sleep(20);
  }
  for (const { io, name } of nodes) {
    const at = `${kind} ${name}`;
    say(`${at} serverCount`, await result(io.of('/').adapter.serverCount()));
    say(`${at} fetchSockets`, await result(io.fetchSockets(), (all) => all.map((s) => s.data.at).sort()));
    say(`${at} fetchSockets of a room`, await result(io.in('at-b').fetchSockets(), (all) => all.map((s) => s.data.at).sort()));
    say(`${at} emitWithAck`, await result(io.timeout(5000).emitWithAck('question'), (all) => all.sort()));
    say(`${at} emitWithAck to a room`, await result(io.to('at-a').timeout(5000).emitWithAck('question'), (all) => all.sort()));
    say(`${at} serverSideEmitWithAck`, await result(io.serverSideEmitWithAck('which')));
  }
  // Messages to several rooms arrive, and in the order in which they were sent unless
  // rooms have channels of shards.
  const count = 600;
  const rooms = ['all', 'at-a', 'at-b'];
  for (let i = 0; i < count; i++) nodes[0].io.to(rooms[i % 3]).emit('n', i);
  const of = (name) => Array.from({ length: count }, (_, i) => i).filter((i) => i % 3 === 0 || rooms[i % 3] === `at-${name}`);
  for (const { sockets, name } of nodes) {
    const want = JSON.stringify(of(name));
    for (let i = 0; i < 250 && sockets.some((s) => s.seen.length < of(name).length); i++) await sleep(20);
    if (kind === 'sharded adapter') for (const s of sockets) s.seen.sort((a, b) => a - b);
    say(`${kind} messages at ${name}`, sockets.map((s) => JSON.stringify(s.seen) === want || `${s.seen.length} messages, not as sent`));
  }
  await Promise.all(nodes.map((n) => n.end()));
}

await run('pattern adapter', (pub, sub) => createAdapter(pub, sub, { requestsTimeout: 5000 }));
await run('sharded adapter', (pub, sub) => createShardedAdapter(pub, sub));
console.log('ended');
process.exit(0);
