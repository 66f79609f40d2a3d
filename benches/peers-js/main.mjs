// One process of a peer: its server, or a device that does what it is told, one JSON line at a time.
//
//     node main.mjs PEER server DIR 127.0.0.1:0      prints {"listening": "127.0.0.1:PORT"}
//     node main.mjs PEER device DIR 127.0.0.1:PORT   obeys commands from stdin
//
// A peer's module has `serve(dir)`, which answers the port, and `device(dir, address)`, which answers
// an object with `connect()`, `disconnect()`, `put(records)` (returns once they are written here),
// `sent()` (once the server has all), `has(key, clock)`, `count()` and `onChange(callback(record))`.

import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { LOOK_MS, pause } from './wait.mjs'

const [peer, role, dir, address] = process.argv.slice(2)
const module = await import(`./${peer}.mjs`)

/** The same clock in every process, in microseconds. */
const wallUs = () => Math.round((performance.timeOrigin + performance.now()) * 1000)
const say = (answer) => process.stdout.write(JSON.stringify(answer) + '\n')

/** Records in one write, as an app that loads many would do it. */
const BATCH = 500

async function* records(file) {
  for await (const line of createInterface({ input: createReadStream(file) })) {
    const { key, value } = JSON.parse(line)
    yield { key, value }
  }
}

async function all(file) {
  const found = []
  for await (const record of records(file)) found.push(record)
  return found
}

async function until(holds) {
  while (!(await holds())) await pause(LOOK_MS)
}

function obey(device) {
  let seen = new Map()
  return {
    async load({ file }) {
      await device.connect()
      const lines = await all(file)
      const begun = performance.now()
      for (let at = 0; at < lines.length; at += BATCH) {
        await device.put(lines.slice(at, at + BATCH))
      }
      await device.sent()
      return { seconds: (performance.now() - begun) / 1000 }
    },
    async pull({ count }) {
      const begun = performance.now()
      await device.connect()
      await until(async () => (await device.count()) >= count)
      return { seconds: (performance.now() - begun) / 1000 }
    },
    async away() {
      await device.disconnect()
      return {}
    },
    async back({ file }) {
      const changed = await all(file)
      const begun = performance.now()
      await device.connect()
      for (const { key, value } of changed) {
        await until(() => device.has(key, value.clock))
      }
      return { seconds: (performance.now() - begun) / 1000 }
    },
    async watch() {
      await device.connect()
      device.onChange((record) => {
        if (record && !seen.has(record.index)) seen.set(record.index, wallUs())
      })
      return {}
    },
    async seen({ count }) {
      await until(() => seen.size >= count)
      return { times: [...seen].slice(0, count) }
    },
    async live({ file, rate, count }) {
      await device.connect()
      const lines = (await all(file)).slice(0, count)
      const begin = wallUs() + 100_000
      const times = []
      const writes = []
      for (const [index, record] of lines.entries()) {
        const offered = begin + Math.floor((index * 1_000_000) / rate)
        // Timers are too coarse for a thousandth of a second, and nothing else may be kept waiting.
        while (wallUs() < offered) await new Promise(setImmediate)
        const write = Promise.resolve(device.put([record]))
        writes.push(write.then(() => times.push([index, offered, wallUs()])))
      }
      await Promise.all(writes)
      await device.sent()
      return { times }
    },
  }
}

if (role === 'server') {
  say({ listening: `127.0.0.1:${await module.serve(dir)}` })
} else {
  const commands = obey(await module.device(dir, address))
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    try {
      say(await commands[command.do](command))
    } catch (error) {
      say({ error: String(error?.stack ?? error).slice(0, 2000) })
    }
  }
  process.exit(0)
}
