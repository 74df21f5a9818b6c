// What the two Node.js programs share: how they report, the steps file, and the
// loop that goes on while servers die. See package program for the rules.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

export const [mode, host, port, stepsFile] = process.argv.slice(2);
export const password = process.env.REDIS_PASSWORD;

let failed = false;

const oneLine = (text) => text.replaceAll('\r', '\\r').replaceAll('\n', '\\n');

export const show = (value) => {
  if (Buffer.isBuffer(value)) return value.toString();
  if (typeof value === 'string') return value;
  if (typeof value === 'bigint') return `${value}n`;
  if (value instanceof Error) return `${value.constructor.name} ${value.message}`;
  if (value instanceof Map) return `Map ${show([...value])}`;
  if (value instanceof Set) return `Set ${show([...value])}`;
  if (Array.isArray(value)) return `[${value.map(show).join(',')}]`;
  if (value !== null && typeof value === 'object') return `{${Object.entries(value).map(([k, v]) => `${k}:${show(v)}`).join(',')}}`;
  return String(value);
};

export class Seen {
  parts = [];

  add(what, value) {
    this.parts.push(`${what} ${show(value)}`);
  }

  // call adds what a promise became: its value, or the server's error.
  async call(what, promise) {
    try {
      this.add(what, await promise);
    } catch (e) {
      if (!isReply(e)) throw e;
      this.add(what, e);
    }
  }
}

// isReply tells an error that the server sent from one of the connection.
let isReply = () => false;
export const repliesAre = (test) => { isReply = test; };

export const check = async (name, feature) => {
  const seen = new Seen();
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('no end within 15 s')), name === 'failover' ? 85000 : 15000); });
  try {
    await Promise.race([feature(seen), late]);
    console.log(oneLine(`ok ${name} ${seen.parts.join(' | ')}`));
  } catch (e) {
    failed = true;
    console.log(oneLine(`FAIL ${name} ${e.constructor.name} ${e.message}, after: ${seen.parts.join(' | ')}`));
  } finally {
    clearTimeout(timer);
  }
};

export const none = (name, why) => console.log(`none ${name} ${why}`);

export const want = (what, got, expected) => {
  const [a, b] = [show(got), show(expected)];
  if (a !== b) throw new Error(`${what}: got ${a.slice(0, 200)}, want ${b.slice(0, 200)}`);
};

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export const later = async (wake) => {
  await sleep(150);
  return wake();
};

// eventually tries until it gets true, for up to ms.
export const eventually = async (ms, attempt) => {
  for (const deadline = Date.now() + ms; Date.now() < deadline; await sleep(5)) {
    if (await attempt()) return true;
  }
  return false;
};

// steps runs the commands of each section as one feature of that name.
export const steps = async (send) => {
  const sections = new Map();
  let lines;
  for (const line of readFileSync(stepsFile, 'utf8').split('\n')) {
    if (line.startsWith('[')) sections.set(line.slice(1, -1), lines = []);
    else if (line !== '' && !line.startsWith('#')) lines.push(line);
  }
  for (const [name, some] of sections) {
    await check(name, async (seen) => {
      want('there are steps', some.length > 0, true);
      for (const line of some) await seen.call(`${line}:`, send(line.split(' ')));
    });
  }
};

// finish ends the program; connections that are still open do not keep it.
export const finish = () => process.exit(failed ? 1 : 0);

// survive is the loop that goes on while servers die. A subject has set, get,
// incr, push, publish and pop; pop waits a second for an item and returns null
// when none came. Its subscribe(channel, got) stays subscribed by the client's own
// means.
export const survive = async (kind, subject) => {
  const name = `failover:${kind}:${process.pid}:`;
  const wrong = [];
  let calls = 0, errors = 0, back = 0, gap = 0, said = '';
  let stop = false, popped = false, arrived = false;
  const failure = async (e) => {
    errors++;
    said = oneLine(e.message);
    await sleep(20);
  };
  const popping = async () => {
    while (!popped) {
      try {
        const item = await subject.pop(`${name}list`);
        if (item === 'last') popped = true;
        else if (item !== null && !item.startsWith('item=')) wrong.push(`an item of the list: ${item}`);
      } catch (e) { await failure(e); }
    }
  };
  const writing = async () => {
    let before = 0, good = Date.now();
    for (let i = 1; !stop; i++) {
      const key = `${name}${i % 12}`;
      try {
        calls += 3;
        // Pipelined: these three are written in one go.
        const [, value, n] = await Promise.all([subject.set(key, `${key}=${i}`), subject.get(key), subject.incr(`${name}counter`)]);
        if (value !== null) {
          const [of, number] = value.split('=');
          if (of !== key || !(Number(number) <= i)) wrong.push(`GET ${key}: ${value} after ${i} were set`);
        }
        if (!(n >= 1 && n <= i + 100)) wrong.push(`INCR: ${n} after ${i} calls`);
        if (n <= before) back++;
        before = n;
        if (i % 10 === 0) {
          await subject.push(`${name}list`, `item=${i}`);
          await subject.publish(`${name}channel`, `news=${i}`);
        }
        gap = Math.max(gap, Date.now() - good);
        good = Date.now();
      } catch (e) { await failure(e); }
      await sleep(5);
    }
  };
  const exact = async () => {
    const numbers = [...Array(12).keys()];
    await Promise.all(numbers.map((i) => subject.set(`${name}${i}`, `end=${i}`)));
    want('GETs', await Promise.all(numbers.map((i) => subject.get(`${name}${i}`))), numbers.map((i) => `end=${i}`));
    const n = await subject.incr(`${name}counter`);
    for (let i = 1; i <= 10; i++) want('INCR', await subject.incr(`${name}counter`), n + i);
    return true;
  };
  const until = async (what, attempt) => {
    let last = '';
    const made = await eventually(10000, async () => {
      try { return await attempt(); } catch (e) { last = e.message; return false; }
    });
    if (!made) throw new Error(`${what}: not within 10 s: ${last}`);
  };
  await subject.subscribe(`${name}channel`, (message) => {
    if (message === 'last') arrived = true;
    else if (!message.startsWith('news=')) wrong.push(`a message: ${message}`);
  });
  popping();
  const written = writing();
  console.log('# ready');
  await new Promise((told) => createInterface({ input: process.stdin }).once('line', told));
  stop = true;
  await written;
  try {
    await until('one SET, GET and INCR after another', exact);
    await until('the last item arrives', async () => {
      await subject.push(`${name}list`, 'last');
      return eventually(500, () => popped);
    });
    await until('the last message arrives', async () => {
      await subject.publish(`${name}channel`, 'last');
      return eventually(500, () => arrived);
    });
  } finally {
    console.log(`# failover: ${calls} calls, ${errors} errors (last: ${said}), counter went back ${back} times, longest time without success ${gap}ms`);
  }
  want('wrong values', wrong, []);
  want('the counter went back at most 3 times', back <= 3, true);
};
