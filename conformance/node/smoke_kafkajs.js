// Smoke of kafkajs against any broker: `node smoke_kafkajs.js BOOTSTRAP`.
//
// kafkajs speaks old, mostly non-flexible versions (Produce <= 7, Fetch <= 11, legacy AlterConfigs),
// which is why it is here; transactions are in transactions.js. What kafkajs itself cannot do is
// printed as a skip. kafkajs reads through groups only, so every read here joins one.
'use strict'

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'

const crypto = require('crypto')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4js')
const xxh32 = require('lz4js/xxh32')
const { ZstdCodec } = require('zstd-codec')
const { Checks, equal, isTrue, sleep, waitFor, awkwardRecords } = require('./checks')
const { Transactions } = require('./transactions')

const BOOTSTRAP = process.argv[2]
const KEEP = process.env.ONCELOG_SMOKE_KEEP === '1'
const checks = new Checks('kafkajs')
const kafka = new Kafka({
  clientId: 'smoke',
  brokers: [BOOTSTRAP],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, retries: 8 },
})
const admin = kafka.admin()
const hasty = kafka.admin({ retry: { retries: 0 } }) // for what should be refused at once
const madeTopics = []
const madeGroups = []

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => {
    const frame = Buffer.from(lz4.compress(encoder.buffer))
    // Kafka insists on the flag for independent blocks. lz4js does not set it, but up to 4 MiB it
    // writes one block, so the flag is true; the header's checksum then changes with it.
    frame[4] |= 0x20
    frame[6] = xxh32.hash(0, frame, 4, 2) >> 8
    return frame
  },
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
})
const zstd = new Promise((done) => ZstdCodec.run((codec) => done(new codec.Simple())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from((await zstd).compress(encoder.buffer, 3)),
  decompress: async (buffer) => Buffer.from((await zstd).decompress(buffer)),
})

async function makeTopic(what, numPartitions = 1, configs = {}) {
  const topic = checks.name(what)
  const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
  await admin.createTopics({
    waitForLeaders: true,
    topics: [{ topic, numPartitions, replicationFactor: 1, configEntries }],
  })
  madeTopics.push(topic)
  return topic
}

async function send(topic, messages, { acks = -1, compression, idempotent = false } = {}) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : null })
  await producer.connect()
  try {
    return await producer.send({ topic, messages, acks, compression })
  } finally {
    await producer.disconnect()
  }
}

function sendNumbers(topic, start, count, partitions) {
  const messages = Array.from({ length: count }, (_, i) => ({
    value: String(start + i),
    partition: (start + i) % partitions,
  }))
  // Idempotent: kafkajs sends the whole request again if one partition of it was not ready.
  return send(topic, messages, { idempotent: true })
}

// A group member: what it was assigned and what it read.
class Member {
  constructor(groupId, options = {}) {
    this.records = []
    this.assigned = null
    this.consumer = kafka.consumer({
      groupId,
      sessionTimeout: 10000,
      heartbeatInterval: 500,
      rebalanceTimeout: 10000,
      maxWaitTimeInMs: 200,
      maxBytesPerPartition: 4 * 1024 * 1024,
      ...options,
    })
    this.consumer.on('consumer.group_join', ({ payload }) => {
      this.assigned = Object.values(payload.memberAssignment).flat()
    })
    madeGroups.push(groupId)
  }

  async start(topic) {
    await this.consumer.connect()
    await this.consumer.subscribe({ topic, fromBeginning: true })
    await this.consumer.run({
      eachMessage: async ({ partition, message }) => {
        this.records.push({ partition, ...message })
      },
    })
    return this
  }

  stop() {
    return this.consumer.disconnect()
  }
}

async function readAll(topic, count, options) {
  const member = await new Member(checks.name(`read-${Math.random()}`), options).start(topic)
  try {
    await waitFor(() => member.records.length >= count, `${count} records of ${topic}`)
    return member.records
  } finally {
    await member.stop()
  }
}

async function refused(promise, type, what) {
  try {
    await promise
  } catch (error) {
    const first = (error.errors || (error.groups || []).map((group) => group.error))[0]
    equal((first || error.cause || error).type, type, what)
    return
  }
  throw new Error(`accepted: ${what}`)
}

const text = (buffer) => (buffer === null ? null : buffer.toString())

// --- Producing and reading -----------------------------------------------------------------------

async function produceAndRead(what, options) {
  const topic = await makeTopic(what)
  const sent = awkwardRecords()
  const answer = await send(topic, sent, options)
  if (options.acks !== 0) {
    equal(answer[0].errorCode, 0, 'error code')
    equal(answer[0].baseOffset, '0', 'base offset')
  }
  const got = await readAll(topic, sent.length)
  equal(got.length, sent.length, 'records read')
  got.forEach((message, i) => {
    const want = sent[i]
    equal(message.offset, String(i), 'offset')
    equal(text(message.key), want.key, 'key')
    isTrue(
      message.value === want.value || message.value.equals(want.value),
      `value of record ${i} differs`
    )
    equal(message.timestamp, want.timestamp, 'timestamp')
    const headers = {}
    for (const [name, value] of Object.entries(message.headers)) {
      headers[name] = Array.isArray(value) ? value.map(text) : text(value)
    }
    equal(headers, want.headers, 'headers')
  })
}

async function orderPerKey() {
  const topic = await makeTopic('order', 3)
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (let round = 0; round < 10; round += 1) {
    const messages = Array.from({ length: 100 }, (_, i) => ({
      key: String(i % 7),
      value: String(round * 100 + i),
    }))
    await producer.send({ topic, messages, compression: CompressionTypes.GZIP })
  }
  await producer.disconnect()
  const got = await readAll(topic, 1000)
  equal(got.length, 1000, 'records read')
  const last = {}
  for (const { partition, key, value } of got) {
    const mine = last[key] || { partition, value: -1 }
    equal(partition, mine.partition, `partition of key ${key}`)
    isTrue(Number(value) > mine.value, `order of key ${key}`)
    last[key] = { partition, value: Number(value) }
  }
}

async function tooLarge() {
  const topic = await makeTopic('small', 1, { 'max.message.bytes': '10000' })
  const big = send(topic, [{ value: Buffer.alloc(20000), partition: 0 }])
  await refused(big, 'MESSAGE_TOO_LARGE', 'a record above max.message.bytes')
}

async function offsetsByTime() {
  const topic = await makeTopic('times')
  const messages = Array.from({ length: 10 }, (_, i) => ({
    value: String(i),
    partition: 0,
    timestamp: String(1700000000000 + i * 100),
  }))
  for (const message of messages) await send(topic, [message])
  const [at] = await admin.fetchTopicOffsetsByTimestamp(topic, 1700000000250)
  equal(at.offset, '3', 'first at or after the time')
  const [after] = await admin.fetchTopicOffsetsByTimestamp(topic, 1800000000000)
  equal(after.offset, '10', 'after the last record (kafkajs turns none into the end)')
  const [ends] = await admin.fetchTopicOffsets(topic)
  equal([ends.low, ends.high], ['0', '10'], 'low and high')
}

async function largeRecord() {
  const topic = await makeTopic('huge', 1, { 'max.message.bytes': '8000000' })
  const value = crypto.randomBytes(6000000)
  const [answer] = await send(topic, [{ value, partition: 0 }])
  equal(answer.baseOffset, '0', 'offset of 6 MB')
  const [message] = await readAll(topic, 1, { maxBytesPerPartition: 1000, maxBytes: 1000 })
  isTrue(message.value.equals(value), 'the value of a record that is larger than a fetch may be')
}

async function logAppendTime() {
  const topic = await makeTopic('append-time', 1, { 'message.timestamp.type': 'LogAppendTime' })
  const before = Date.now()
  await send(topic, [{ value: 'v', partition: 0, timestamp: '1000' }])
  const [message] = await readAll(topic, 1)
  const late = Number(message.timestamp) - before
  isTrue(late >= -1000 && late < 60000, `the timestamp is the broker's, not ${message.timestamp}`)
  const [at] = await admin.fetchTopicOffsetsByTimestamp(topic, Number(message.timestamp))
  equal(at.offset, '0', "found by the broker's time")
}

async function seekPauseResume() {
  const topic = await makeTopic('seek', 2)
  await sendNumbers(topic, 0, 40, 2)
  const member = await new Member(checks.name('seek')).start(topic)
  try {
    await waitFor(() => member.records.length === 40, 'everything is read')
    member.consumer.seek({ topic, partition: 0, offset: '15' })
    await waitFor(() => member.records.length >= 45, 'the records after the seek')
    equal(member.records.slice(40, 45).map((r) => r.offset), ['15', '16', '17', '18', '19'], 'sought')
    member.consumer.pause([{ topic, partitions: [0] }])
    await sendNumbers(topic, 40, 20, 2)
    await waitFor(() => member.records.length >= 55, 'the other partition is read')
    await sleep(500)
    const paused = member.records.slice(45)
    equal(paused.map((r) => r.partition), Array(10).fill(1), 'partitions read while one is paused')
    member.consumer.resume([{ topic, partitions: [0] }])
    await waitFor(() => member.records.length >= 65, 'once resumed')
    equal(member.records.slice(55).map((r) => Number(r.value)), range(20, 30).map((i) => 2 * i), 'rest')
  } finally {
    await member.stop()
  }
}

async function lag() {
  const topic = await makeTopic('lag', 1)
  const group = checks.name('lag')
  await sendNumbers(topic, 0, 10, 1)
  const member = await new Member(group).start(topic)
  await waitFor(() => member.records.length === 10, 'everything is read')
  await member.stop()
  await sendNumbers(topic, 10, 7, 1)
  const [offset] = await committed(group, topic)
  const [ends] = await admin.fetchTopicOffsets(topic)
  equal(Number(ends.high) - Number(offset), 7, 'lag')
}

async function manyPartitions() {
  const topic = await makeTopic('many', 200)
  await sendNumbers(topic, 0, 1000, 200)
  const found = await readAll(topic, 1000)
  equal(found.map((r) => Number(r.value)).sort((a, b) => a - b), range(0, 1000), 'records read')
  isTrue(found.every((r) => Number(r.value) % 200 === r.partition), 'each in its partition')
  // Even where topics are kept: so many files would be all that is left to look at. And not through
  // the shared admin client, which would go on asking for what is gone.
  const own = kafka.admin()
  await own.connect()
  await own.deleteTopics({ topics: [topic] })
  await own.disconnect()
  madeTopics.splice(madeTopics.indexOf(topic), 1)
}

async function deletedAndMadeAgain() {
  // Clients of their own: kafkajs goes on asking for a topic that is gone, and fails for it.
  const topic = checks.name('again')
  const own = kafka.admin()
  await own.connect()
  const make = (numPartitions) => own.createTopics({
    waitForLeaders: false,
    topics: [{ topic, numPartitions, replicationFactor: 1 }],
  })
  const listed = async () => (await own.listTopics()).includes(topic)
  await make(1)
  await waitFor(listed, 'topic listed')
  const producer = kafka.producer({ metadataMaxAge: 500 })
  await producer.connect()
  try {
    const one = await producer.send({ topic, messages: [{ value: '1', partition: 0 }] })
    equal(one[0].baseOffset, '0', 'offset in the first topic')
    await own.deleteTopics({ topics: [topic] })
    await waitFor(async () => !(await listed()), 'topic gone')
    await make(3)
    madeTopics.push(topic)
    await waitFor(listed, 'topic listed again')
    await sleep(1000) // past the age of what the producer knows
    const two = await producer.send({ topic, messages: [{ value: '2', partition: 2 }] })
    equal([two[0].partition, two[0].baseOffset], [2, '0'], 'place in the second topic')
  } finally {
    await producer.disconnect()
    await own.disconnect()
  }
  equal((await readAll(topic, 1)).map((r) => text(r.value)), ['2'], 'records of the second')
}

// --- Groups --------------------------------------------------------------------------------------

const numbers = (...members) =>
  members.flatMap((member) => member.records.map((r) => Number(r.value))).sort((a, b) => a - b)
const range = (start, end) => Array.from({ length: end - start }, (_, i) => start + i)
const distinct = (list) => [...new Set(list)]

async function committed(groupId, topic) {
  const [found] = await admin.fetchOffsets({ groupId, topics: [topic] })
  return found.partitions.sort((a, b) => a.partition - b.partition).map((p) => p.offset)
}

async function groupRebalance() {
  const topic = await makeTopic('group', 4)
  const group = checks.name('group')
  await sendNumbers(topic, 0, 100, 4)
  const a = await new Member(group).start(topic)
  await waitFor(() => a.assigned && a.assigned.length === 4, 'the first member has 4 partitions')
  await waitFor(() => a.records.length === 100, 'the first member reads everything')
  const b = await new Member(group).start(topic)
  await waitFor(
    () => a.assigned.length === 2 && b.assigned && b.assigned.length === 2,
    'two partitions for each of two members'
  )
  equal([...a.assigned, ...b.assigned].sort(), [0, 1, 2, 3], 'partitions owned')
  const [described] = (await admin.describeGroups([group])).groups
  equal(described.state, 'Stable', 'group state')
  equal(described.members.length, 2, 'members described')
  await sendNumbers(topic, 100, 100, 4)
  await waitFor(() => distinct(numbers(a, b)).length === 200, 'the second hundred is read')
  await b.stop()
  await waitFor(() => a.assigned.length === 4, "the leaver's partitions come back")
  await waitFor(async () => {
    const offsets = await committed(group, topic)
    return offsets.every((offset) => offset === '50')
  }, 'committed offsets are 50 in each partition')
  await a.stop()
  await sendNumbers(topic, 200, 20, 4)
  const again = await new Member(group).start(topic)
  await waitFor(() => again.records.length >= 20, 'the restarted member reads on')
  await sleep(500)
  await again.stop()
  equal(numbers(again), range(200, 220), 'only what came after the commit')
}

async function groupAdmin() {
  const topic = await makeTopic('group-admin', 2)
  const groupId = checks.name('group-admin')
  await sendNumbers(topic, 0, 10, 2)
  const partitions = [
    { partition: 0, offset: '2' },
    { partition: 1, offset: '4' },
  ]
  await admin.setOffsets({ groupId, topic, partitions })
  equal(await committed(groupId, topic), ['2', '4'], 'offsets set')
  // kafkajs commits the sentinel -2 itself and resolves it when it reads it back.
  await admin.resetOffsets({ groupId, topic, earliest: true })
  const [at] = await admin.fetchOffsets({ groupId, topics: [topic], resolveOffsets: true })
  equal(at.partitions.map((p) => p.offset), ['0', '0'], 'offsets reset to the earliest')
  const listed = async () => (await admin.listGroups()).groups.map((g) => g.groupId)
  isTrue((await listed()).includes(groupId), 'group listed')
  const [described] = (await admin.describeGroups([groupId])).groups
  equal(described.state, 'Empty', 'state described')
  const [deleted] = await admin.deleteGroups([groupId])
  equal(deleted.errorCode, 0, 'group deleted')
  isTrue(!(await listed()).includes(groupId), 'deleted group not listed')
  await refused(hasty.deleteGroups([groupId]), 'GROUP_ID_NOT_FOUND', 'deleting a group twice')
}

// --- Admin ---------------------------------------------------------------------------------------

async function configsOf(name) {
  const { resources } = await admin.describeConfigs({
    resources: [{ type: ConfigResourceTypes.TOPIC, name }],
    includeSynonyms: false,
  })
  equal(resources[0].errorCode, 0, 'DescribeConfigs')
  return Object.fromEntries(resources[0].configEntries.map((e) => [e.configName, e.configValue]))
}

async function topicAdmin() {
  const topic = await makeTopic('admin', 3, { 'retention.ms': '3600000' })
  isTrue((await admin.listTopics()).includes(topic), 'topic listed')
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  equal(topics[0].partitions.length, 3, 'partitions')
  for (const { leader, replicas, isr } of topics[0].partitions) {
    equal([replicas, isr], [[leader], [leader]], 'replicas and in-sync replicas')
  }
  equal((await configsOf(topic))['retention.ms'], '3600000', 'retention.ms')
  equal(await admin.createTopics({ topics: [{ topic }] }), false, 'creating a topic twice')
  const bad = admin.createTopics({ topics: [{ topic: checks.name('bad'), replicationFactor: 5 }] })
  await refused(bad, 'INVALID_REPLICATION_FACTOR', 'replication factor 5')
}

async function createPartitions() {
  const topic = await makeTopic('grow')
  await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
  await waitFor(async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    return topics[0].partitions.filter((p) => p.leader >= 0).length === 4
  }, '4 partitions')
  await sendNumbers(topic, 0, 8, 4)
  const found = await readAll(topic, 8)
  equal(found.map((r) => r.partition).sort(), [0, 0, 1, 1, 2, 2, 3, 3], 'records per partition')
}

async function alterConfigs() {
  const name = await makeTopic('alter', 1, { 'segment.ms': '700000' })
  const configEntries = [{ name: 'retention.ms', value: '2000000' }]
  await admin.alterConfigs({
    resources: [{ type: ConfigResourceTypes.TOPIC, name, configEntries }],
  })
  await waitFor(async () => (await configsOf(name))['retention.ms'] === '2000000', 'the new value')
  equal((await configsOf(name))['segment.ms'], '604800000', 'a key left out is the default again')
}

async function deleteRecords() {
  const topic = await makeTopic('delete-records')
  await sendNumbers(topic, 0, 20, 1)
  await admin.fetchTopicOffsets(topic) // deleteTopicRecords looks leaders up in what is loaded
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '7' }] })
  const [ends] = await admin.fetchTopicOffsets(topic)
  equal([ends.low, ends.high], ['7', '20'], 'low and high')
  equal((await readAll(topic, 13)).map((r) => Number(r.value)), range(7, 20), 'records left')
}

async function describeCluster() {
  const cluster = await admin.describeCluster()
  isTrue(cluster.clusterId, 'cluster id')
  isTrue(cluster.brokers.some((b) => b.nodeId === cluster.controller), 'controller is a broker')
}

async function deleteTopic() {
  const topic = await makeTopic('doomed', 2)
  await admin.deleteTopics({ topics: [topic] })
  madeTopics.splice(madeTopics.indexOf(topic), 1)
  await waitFor(async () => !(await admin.listTopics()).includes(topic), 'topic gone')
  const again = hasty.deleteTopics({ topics: [topic] })
  await refused(again, 'UNKNOWN_TOPIC_OR_PARTITION', 'deleting a topic twice')
}

async function cleanUp() {
  const empty = new Set((await admin.listGroups()).groups.map((g) => g.groupId))
  const groups = madeGroups.filter((group) => empty.has(group))
  if (groups.length) await admin.deleteGroups(groups)
  if (!KEEP && madeTopics.length) await admin.deleteTopics({ topics: madeTopics })
}

async function main() {
  await admin.connect()
  await hasty.connect()
  for (const [name, acks] of [['0', 0], ['1', 1], ['all', -1]]) {
    await checks.run(`produce-acks-${name}`, () => produceAndRead(`acks-${name}`, { acks }))
  }
  await checks.run('produce-idempotent', () => produceAndRead('idem', { idempotent: true }))
  const codecs = {
    gzip: CompressionTypes.GZIP,
    snappy: CompressionTypes.Snappy,
    lz4: CompressionTypes.LZ4,
    zstd: CompressionTypes.ZSTD,
  }
  for (const [codec, compression] of Object.entries(codecs)) {
    await checks.run(`codec-${codec}`, () => produceAndRead(`codec-${codec}`, { compression }))
  }
  await checks.run('order-per-key', orderPerKey)
  await checks.run('record-too-large', tooLarge)
  await checks.run('offsets-by-time', offsetsByTime)
  await checks.run('large-record', largeRecord)
  await checks.run('log-append-time', logAppendTime)
  await checks.run('seek-pause-resume', seekPauseResume)
  await checks.run('lag', lag)
  await checks.run('many-partitions', manyPartitions)
  await checks.run('topic-deleted-and-made-again', deletedAndMadeAgain)
  checks.skip('consume-by-assign', 'kafkajs reads through groups only')
  await checks.run('group-rebalance-and-resume', groupRebalance)
  checks.skip('group-consumer', 'kafkajs has no consumer protocol (KIP-848)')
  checks.skip('group-cooperative', 'kafkajs has no cooperative assignor')
  checks.skip('group-static-members', 'kafkajs has no group.instance.id')
  await checks.run('group-admin', groupAdmin)
  checks.skip('delete-offsets', 'kafkajs has no OffsetDelete')
  await new Transactions({ kafka, admin, checks, makeTopic, madeGroups, Member }).run()
  await checks.run('topic-admin', topicAdmin)
  await checks.run('create-partitions', createPartitions)
  await checks.run('alter-configs-legacy', alterConfigs)
  checks.skip('alter-configs-incremental', 'kafkajs has no IncrementalAlterConfigs')
  await checks.run('delete-records', deleteRecords)
  await checks.run('describe-cluster', describeCluster)
  checks.skip('describe-log-dirs', 'kafkajs has no DescribeLogDirs')
  await checks.run('delete-topic', deleteTopic)
  await checks.run('clean-up', cleanUp)
  await admin.disconnect()
  await hasty.disconnect()
  process.exit(checks.failed ? 1 : 0)
}

main().catch((error) => {
  console.log(`FAIL start: ${error}`)
  process.exit(1)
})
