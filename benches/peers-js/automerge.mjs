// automerge-repo: one document with a map of records, in memory on both sides.

import { Repo } from '@automerge/automerge-repo'
import {
  WebSocketClientAdapter,
  WebSocketServerAdapter,
} from '@automerge/automerge-repo-network-websocket'
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import { LOOK_MS, pause } from './wait.mjs'

export async function serve() {
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false })
  const repo = new Repo({ network: [new WebSocketServerAdapter(sockets)] })
  const handle = repo.create({ messages: {} })
  // Devices ask for the name of the one document before they open a socket, and it acknowledges
  // nothing: so they also ask for what the server has.
  const http = createServer(({ url }, answer) =>
    answer.end(url === '/heads' ? String(handle.heads()) : handle.url))
  http.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head,
    (opened) => sockets.emit('connection', opened, request)))
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve))
  return http.address().port
}

export async function device(_dir, address) {
  const repo = new Repo({ network: [] })
  let adapter, handle
  const changed = []
  return {
    async connect() {
      if (adapter) return
      const url = await (await fetch(`http://${address}/`)).text()
      adapter = new WebSocketClientAdapter(`ws://${address}`)
      repo.networkSubsystem.addNetworkAdapter(adapter)
      await repo.networkSubsystem.whenReady()
      if (handle) return
      handle = await repo.find(url)
      await handle.whenReady()
      handle.on('change', ({ doc, patches }) => {
        const keys = new Set(patches.filter(({ path }) => path[0] === 'messages' && path.length > 1)
          .map(({ path }) => path[1]))
        for (const key of keys) changed.forEach((callback) => callback(doc.messages[key]))
      })
    },
    async disconnect() {
      repo.networkSubsystem.removeNetworkAdapter(adapter)
      adapter = undefined
    },
    put(records) {
      handle.change((doc) => records.forEach(({ key, value }) => { doc.messages[key] = value }))
    },
    async sent() {
      const heads = async () => (await fetch(`http://${address}/heads`)).text()
      while ((await heads()) !== String(handle.heads())) await pause(LOOK_MS)
    },
    has: (key, clock) => handle.doc()?.messages?.[key]?.clock === clock,
    count: () => Object.keys(handle.doc()?.messages ?? {}).length,
    onChange: (callback) => changed.push(callback),
  }
}
