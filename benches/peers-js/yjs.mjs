// Yjs with y-websocket: one document, one map of records, in memory on both sides.

import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { LOOK_MS, pause } from './wait.mjs'

export async function serve() {
  // Its server comes as CommonJS, and all of a process must use one Yjs.
  const require = createRequire(import.meta.url)
  const { docs, setupWSConnection } = require('y-websocket/bin/utils')
  const { encodeStateVector } = require('yjs')
  const { WebSocketServer } = require('ws')
  // It acknowledges nothing: so devices ask for what it has.
  const http = createServer((_, answer) => answer.end(encodeStateVector(docs.get('main'))))
  const sockets = new WebSocketServer({ server: http, perMessageDeflate: false })
  sockets.on('connection', setupWSConnection)
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve))
  return http.address().port
}

export async function device(_dir, address) {
  const Y = await import('yjs')
  const { WebsocketProvider } = await import('y-websocket')
  const { default: WebSocket } = await import('ws')
  const doc = new Y.Doc()
  const map = doc.getMap('messages')
  let provider
  return {
    async connect() {
      provider ??= new WebsocketProvider(`ws://${address}`, 'main', doc, {
        WebSocketPolyfill: WebSocket,
        disableBc: true,
        connect: false,
      })
      if (provider.wsconnected) return
      provider.connect()
      await new Promise((resolve) => provider.once('sync', resolve))
    },
    async disconnect() {
      provider.disconnect()
    },
    put(records) {
      doc.transact(() => records.forEach(({ key, value }) => map.set(key, value)))
    },
    async sent() {
      const own = Buffer.from(Y.encodeStateVector(doc))
      const has = async () => Buffer.from(await (await fetch(`http://${address}/`)).arrayBuffer())
      while (!own.equals(await has())) await pause(LOOK_MS)
    },
    has: (key, clock) => map.get(key)?.clock === clock,
    count: () => map.size,
    onChange(callback) {
      map.observe((event) => event.keysChanged.forEach((key) => callback(map.get(key))))
    },
  }
}
