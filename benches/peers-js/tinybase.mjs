// TinyBase: a mergeable store over its WebSocket server, in memory on both sides.

import { createServer } from 'node:http'
import { createMergeableStore } from 'tinybase'
import { createWsServer } from 'tinybase/synchronizers/synchronizer-ws-server'
import { createWsSynchronizer } from 'tinybase/synchronizers/synchronizer-ws-client'
import { createCustomPersister } from 'tinybase/persisters'
import WebSocket, { WebSocketServer } from 'ws'
import { LOOK_MS, pause } from './wait.mjs'

export async function serve() {
  const store = createMergeableStore()
  // It acknowledges nothing: so devices ask how much it has.
  const http = createServer((_, answer) => answer.end(String(store.getRowCount('messages'))))
  const sockets = new WebSocketServer({ server: http, perMessageDeflate: false })
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve))
  // Without a persister the server only relays; with this one it keeps a store, in its memory.
  const nothing = async () => undefined
  createWsServer(sockets, () =>
    createCustomPersister(store, nothing, nothing, nothing, nothing, undefined, 3))
  return http.address().port
}

export async function device(_dir, address) {
  const store = createMergeableStore()
  let synchronizer
  return {
    async connect() {
      if (synchronizer) return
      const socket = new WebSocket(`ws://${address}/main`, { perMessageDeflate: false })
      synchronizer = await createWsSynchronizer(store, socket, 60)
      await synchronizer.startSync()
    },
    async disconnect() {
      await synchronizer.destroy()
      synchronizer = undefined
    },
    put(records) {
      store.transaction(() => records.forEach(({ key, value }) =>
        store.setRow('messages', key, cells(value))))
    },
    async sent() {
      const count = async () => Number(await (await fetch(`http://${address}/`)).text())
      while ((await count()) < store.getRowCount('messages')) await pause(LOOK_MS)
    },
    has: (key, clock) => store.getCell('messages', key, 'clock') === clock,
    count: () => store.getRowCount('messages'),
    onChange(callback) {
      store.addRowListener('messages', null, (_, __, key) => callback(store.getRow('messages', key)))
    },
  }
}

/** A cell holds no object; what is nested is kept as JSON. */
function cells(value) {
  return Object.fromEntries(Object.entries(value)
    .filter(([, cell]) => cell !== null)
    .map(([name, cell]) => [name, typeof cell === 'object' ? JSON.stringify(cell) : cell]))
}
