// Locks several resources at once with node-redlock. See package program for the line it
// prints.
import Redis from 'ioredis';
import Redlock from 'redlock';
import { check, host, password, port } from './report.mjs';

await check('redlock', async (seen) => {
  const redis = new Redis({ host, port, password });
  await redis.flushall();
  const locks = new Redlock([redis], { retryCount: 2, retryDelay: 50 });
  const both = await locks.lock(['account:a', 'account:b', 'stock:17'], 10000);
  seen.add('locked', (await redis.exists('account:a', 'account:b', 'stock:17')));
  seen.add('second', await locks.lock(['stock:17', 'account:c'], 1000).then(() => 'locked', (e) => e.name));
  await both.extend(20000);
  seen.add('extended', await redis.pttl('account:b') > 10000);
  await both.unlock();
  seen.add('free', await redis.exists('account:a', 'account:b', 'stock:17'));
  const again = await locks.lock(['stock:17', 'account:c'], 1000);
  seen.add('again', again.resource);
  await again.unlock();
  await redis.quit();
});
process.exit(0);
