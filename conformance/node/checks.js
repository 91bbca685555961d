// The frame of the Node smoke script: one printed line per check, and the records.
//
// Every check prints exactly one line, which `cargo xtask test` counts:
//   ok NAME / FAIL NAME: why / skip NAME: reason
// It deliberately knows no Kafka client. A check that fails does not stop those after it.
'use strict'

const crypto = require('crypto')
const { isDeepStrictEqual } = require('util')

const ONLY = process.env.ONCELOG_SMOKE_ONLY || '' // only checks with this in their name
const RUN = crypto.randomBytes(4).toString('hex')

class Checks {
  constructor(client) {
    this.client = client
    this.failed = 0
  }

  // A topic or group name that no earlier run has used.
  name(what) {
    return `smoke-${this.client}-${RUN}-${what}`
  }

  async run(name, check) {
    if (!name.includes(ONLY)) return
    const started = Date.now()
    try {
      await check()
      console.log(`ok ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    } catch (error) {
      this.failed += 1
      const at = (error.stack || '').split('\n').find((line) => /smoke_kafkajs|transactions/.test(line))
      console.log(`FAIL ${name}: ${String(error).replace(/\s+/g, ' ')} (${(at || '').trim()})`)
    }
  }

  skip(name, reason) {
    console.log(`skip ${name}: ${reason}`)
  }
}

function equal(got, want, what) {
  if (!isDeepStrictEqual(got, want)) {
    throw new Error(`${what}: got ${shorten(got)}, want ${shorten(want)}`)
  }
}

function isTrue(condition, what) {
  if (!condition) throw new Error(what)
}

function shorten(value) {
  const text = JSON.stringify(value) || String(value)
  return text.length <= 300 ? text : `${text.slice(0, 300)}... (${text.length} characters)`
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

// Polls `condition` until it holds; its last answer is returned.
async function waitFor(condition, what, seconds = 30) {
  const deadline = Date.now() + seconds * 1000
  for (;;) {
    const answer = await condition()
    if (answer) return answer
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`)
    await sleep(50)
  }
}

// Each shape that codecs get wrong, as kafkajs messages with timestamps. kafkajs sends them as one
// batch, so uncompressed they have to stay below the default max.message.bytes together.
function awkwardRecords() {
  const noise = crypto.randomBytes(900000) // does not compress
  const shapes = [
    { key: 'key', value: Buffer.from('value') },
    { key: null, value: Buffer.from('no key') },
    { key: 'tombstone', value: null },
    { key: '', value: Buffer.alloc(0) },
    { key: null, value: null },
    { key: 'headers', value: Buffer.from('v'), headers: { h: ['1', '2', '1'], other: 'x' } },
    { key: 'empty header', value: Buffer.from('v'), headers: { k: '' } },
    { key: 'schlüssel ✓', value: Buffer.from(Array.from({ length: 256 }, (_, i) => i)) },
    { key: 'large', value: noise, headers: { size: '900000' } },
    { key: 'zeros', value: Buffer.alloc(100000) },
    { key: 'last', value: Buffer.from('end') },
  ]
  return shapes.map((shape, i) => ({
    headers: {},
    ...shape,
    partition: 0,
    timestamp: String(1700000000000 + i * 1000),
  }))
}

module.exports = { Checks, equal, isTrue, sleep, waitFor, awkwardRecords }
