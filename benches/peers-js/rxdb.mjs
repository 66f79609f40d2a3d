// RxDB with its memory storage and its WebSocket replication: the free parts of it.

import { createRxDatabase } from 'rxdb'
import { replicateWithWebsocketServer, startWebsocketServer } from 'rxdb/plugins/replication-websocket'
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory'
import WebSocket from 'ws'

const text = { type: 'string' }
const number = { type: 'number' }
const schema = {
  version: 0,
  primaryKey: 'id',
  type: 'object',
  properties: {
    id: { type: 'string', maxLength: 64 },
    thread_id: text,
    role: text,
    data: { type: 'object', properties: { author: text, content: text } },
    index: number,
    order_key: text,
    file_hashes: { type: ['string', 'null'] },
    deleted: { type: 'boolean' },
    created_at: number,
    updated_at: number,
    clock: number,
  },
}

async function open() {
  const database = await createRxDatabase({
    name: 'main',
    storage: getRxStorageMemory(),
    multiInstance: false,
    eventReduce: true,
  })
  await database.addCollections({ messages: { schema } })
  return database
}

export async function serve() {
  const { createServer } = await import('node:net')
  // It takes a port only by number.
  const free = createServer()
  const port = await new Promise((resolve) =>
    free.listen(0, '127.0.0.1', () => resolve(free.address().port)))
  await new Promise((resolve) => free.close(resolve))
  await startWebsocketServer({ database: await open(), port, host: '127.0.0.1', path: '/main' })
  return port
}

export async function device(_dir, address) {
  globalThis.WebSocket ??= WebSocket
  const { messages } = await open()
  let replication
  return {
    async connect() {
      if (replication) return
      replication = await replicateWithWebsocketServer({
        collection: messages,
        url: `ws://${address}/main`,
        batchSize: 1000,
        live: true,
      })
      await replication.awaitInitialReplication()
    },
    async disconnect() {
      await replication.cancel()
      replication = undefined
    },
    put: (records) => messages.bulkUpsert(records.map(({ value }) => value)),
    sent: () => replication.awaitInSync(),
    has: async (key, clock) => (await messages.findOne(key).exec())?.clock === clock,
    count: () => messages.count().exec(),
    onChange(callback) {
      messages.$.subscribe((event) => callback(event.documentData))
    },
  }
}
