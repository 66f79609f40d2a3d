// PouchDB over HTTP to express-pouchdb, LevelDB on both sides.

import express from 'express'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { LOOK_MS, pause } from './wait.mjs'

const require = createRequire(import.meta.url)
const PouchDB = require('pouchdb')

export async function serve(dir) {
  const Kept = PouchDB.defaults({ prefix: `${dir}/` })
  const app = express()
  app.use('/', require('express-pouchdb')(Kept, { inMemoryConfig: true, logPath: join(dir, 'log') }))
  new Kept('main')
  const http = await new Promise((resolve) => {
    const listening = app.listen(0, '127.0.0.1', () => resolve(listening))
  })
  return http.address().port
}

export async function device(dir, address) {
  const db = new PouchDB(join(dir, 'db'))
  const remote = new PouchDB(`http://${address}/main`)
  const revisions = new Map()
  let sync
  return {
    async connect() {
      sync ??= db.sync(remote, { live: true, retry: true, batch_size: 1000, batches_limit: 4 })
    },
    async disconnect() {
      const ended = new Promise((resolve) => sync.on('complete', resolve))
      sync.cancel()
      await ended
      sync = undefined
    },
    async put(records) {
      const docs = records.map(({ key, value }) => ({ _id: key, _rev: revisions.get(key), ...value }))
      for (const { id, rev } of await db.bulkDocs(docs)) revisions.set(id, rev)
    },
    async sent() {
      const own = (await db.info()).doc_count
      let last
      for (;;) {
        const at = (await db.info()).update_seq
        const done = sync.push?.state === 'pending' && last === at
        if (done && (await remote.info()).doc_count >= own) return
        last = at
        await pause(10 * LOOK_MS)
      }
    },
    async has(key, clock) {
      return (await db.get(key).catch(() => undefined))?.clock === clock
    },
    count: async () => (await db.info()).doc_count,
    onChange(callback) {
      db.changes({ live: true, since: 'now', include_docs: true })
        .on('change', ({ doc }) => callback(doc))
    },
  }
}
