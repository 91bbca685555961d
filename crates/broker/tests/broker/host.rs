//! A host of the pure broker for tests: one disk in memory, one clock that stands still, any
//! number of connections.
//!
//! Effects are carried out at once, in the order of emission. A test that wants to see what
//! happens while the disk is busy holds work back ([`Host::hold`]) and lets it go later, in
//! whatever order the contract of `DiskOp` allows.
//!
//! Checked on every answer: it belongs to the oldest unanswered request of its connection, its
//! length prefix is right, and it can be decoded in the version of the request.

use bytes::{Bytes, BytesMut};
use oncelog_broker::{
    Answer, Broker, Chunk, ConnectionId, Effect, Input, Level, OpId, OpenError, OpenReport,
    Refusal, open, prepare,
};
use oncelog_commitlog::testing::MemoryDisk;
use oncelog_commitlog::{Disk, DiskOp, execute};
use oncelog_coordinator::cluster::BrokerConfig;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::{ApiKey, RequestBody, ResponseBody, frame};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The wall clock at the start: any fixed moment will do.
pub const START_MS: i64 = 1_700_000_000_000;

pub const LISTENER: &str = "PLAINTEXT";

/// Which disk work is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Nothing,
    Appends,
    Everything,
}

pub struct Host {
    pub disk: Arc<MemoryDisk>,
    pub broker: Broker,
    pub report: OpenReport,
    pub now: Now,
    pub stopped: bool,
    pub logs: Vec<(Level, String)>,
    properties: BTreeMap<String, String>,
    hold: Hold,
    held: VecDeque<(OpId, DiskOp)>,
    /// Disk work that is done next.
    due: VecDeque<(OpId, DiskOp)>,
    /// Answers that were emitted and not encoded: their connections are slow.
    unsent: Option<VecDeque<Box<Answer>>>,
    slow: VecDeque<Box<Answer>>,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: u64,
    next_correlation: i32,
    default_connection: Option<ConnectionId>,
}

#[derive(Default)]
struct Connection {
    /// Requests that expect an answer, oldest first.
    unanswered: VecDeque<(i32, ApiKey, i16)>,
    answers: VecDeque<ResponseBody>,
    closed: Option<String>,
}

/// A new broker on a new disk, with Kafka's defaults but for what is given.
pub fn start(properties: &[(&str, &str)]) -> Host {
    start_on(Arc::new(MemoryDisk::new()), properties)
}

pub fn start_on(disk: Arc<MemoryDisk>, properties: &[(&str, &str)]) -> Host {
    let now = Now {
        instant: Instant(1),
        wall_ms: START_MS,
    };
    try_start_on(disk, properties, now).expect("the broker opens")
}

pub fn try_start_on(
    disk: Arc<MemoryDisk>,
    properties: &[(&str, &str)],
    now: Now,
) -> Result<Host, OpenError> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    // The real default is a second or more of waiting in each test that joins a group.
    all.insert("group.initial.rebalance.delay.ms".into(), "0".into());
    all.insert("offsets.topic.num.partitions".into(), "8".into());
    for (name, value) in properties {
        all.insert((*name).to_owned(), (*value).to_owned());
    }
    open_host(disk, all, now)
}

fn open_host(
    disk: Arc<MemoryDisk>,
    properties: BTreeMap<String, String>,
    now: Now,
) -> Result<Host, OpenError> {
    let mut config = BrokerConfig::from_properties(&properties).expect("valid properties");
    config.fill_in_addresses("broker.test", &[9092]);
    let seed = 7 + now.instant.0;
    let opened = open(config, &*disk, now, seed)?;
    let mut host = Host {
        disk,
        broker: opened.broker,
        report: opened.report,
        now,
        stopped: false,
        logs: Vec::new(),
        properties,
        hold: Hold::Nothing,
        held: VecDeque::new(),
        due: VecDeque::new(),
        unsent: None,
        slow: VecDeque::new(),
        connections: BTreeMap::new(),
        next_connection: 1,
        next_correlation: 100,
        default_connection: None,
    };
    host.carry_out();
    Ok(host)
}

impl Host {
    // ---- time ----

    /// Lets time pass; every deadline on the way gets its tick at its own time.
    pub fn pass_ms(&mut self, ms: i64) {
        let end = self.now.instant.plus_ms(ms);
        while let Some(next) = self.broker.next_deadline().filter(|next| *next <= end) {
            self.move_to(next);
            self.input(Input::Tick);
            let later = self.broker.next_deadline();
            assert!(
                later.is_none_or(|later| later > next),
                "a deadline that has passed is still the next one"
            );
        }
        self.move_to(end);
        self.input(Input::Tick);
    }

    fn move_to(&mut self, instant: Instant) {
        let instant = instant.max(self.now.instant);
        let passed_ms = instant.0 / 1_000_000 - self.now.instant.0 / 1_000_000;
        self.now.wall_ms += passed_ms as i64;
        self.now.instant = instant;
    }

    // ---- connections and frames ----

    pub fn connect(&mut self) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(connection, Connection::default());
        self.input(Input::Connected {
            connection,
            peer: "10.0.0.1".to_owned(),
            listener: LISTENER.to_owned(),
        });
        connection
    }

    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
        self.input(Input::Disconnected { connection });
    }

    /// Why the broker closed the connection, if it did.
    pub fn closed(&self, connection: ConnectionId) -> Option<&str> {
        self.connections[&connection].closed.as_deref()
    }

    /// Sends a request and leaves its answer for [`Host::receive`].
    pub fn send(&mut self, connection: ConnectionId, version: i16, body: impl Into<RequestBody>) {
        let body = body.into();
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let answered = !matches!(&body, RequestBody::Produce(produce) if produce.acks == 0);
        if answered {
            let place = (correlation, body.api_key(), version);
            self.connection(connection).unanswered.push_back(place);
        }
        let frame = frame::encode_request(correlation, Some("tester"), version, &body)
            .expect("the request can be encoded in this version")
            .to_bytes()
            .expect("no file slices in it");
        self.send_frame(connection, frame.slice(frame::LENGTH_PREFIX..));
    }

    /// Sends a frame as it is, without its length prefix.
    pub fn send_frame(&mut self, connection: ConnectionId, frame: Bytes) {
        match prepare(frame) {
            Ok(request) => self.input(Input::Request {
                connection,
                request: Box::new(request),
            }),
            Err(Refusal::Answer(encoded)) => self.deliver(
                connection,
                encoded.to_bytes().expect("no file slices in it"),
            ),
            Err(Refusal::Close(reason)) => self.connection(connection).closed = Some(reason),
        }
    }

    /// Sends a frame of which nothing is known; if it is a request, its answer is expected.
    pub fn send_anything(&mut self, connection: ConnectionId, frame: Bytes) {
        if let Ok(request) = prepare(frame.clone()) {
            if !request.wants_no_answer() {
                let place = (
                    request.correlation_id,
                    request.body.api_key(),
                    request.version,
                );
                self.connection(connection).unanswered.push_back(place);
            }
        } else if let Some(correlation) = frame.get(4..8) {
            // A version of ApiVersions from the future is answered too.
            if frame[..2] == ApiKey::ApiVersions.code().to_be_bytes() {
                let correlation = i32::from_be_bytes(correlation.try_into().expect("four bytes"));
                let version = i16::from_be_bytes([frame[2], frame[3]]);
                if !(0..=4).contains(&version) {
                    self.expect(connection, correlation, ApiKey::ApiVersions, version);
                }
            }
        }
        self.send_frame(connection, frame);
    }

    /// For requests that [`Host::send_frame`] sends: an answer in this version is expected.
    pub fn expect(
        &mut self,
        connection: ConnectionId,
        correlation: i32,
        key: ApiKey,
        version: i16,
    ) {
        let place = (correlation, key, version);
        self.connection(connection).unanswered.push_back(place);
    }

    /// The oldest answer that has arrived and was not taken yet.
    pub fn receive(&mut self, connection: ConnectionId) -> Option<ResponseBody> {
        self.connection(connection).answers.pop_front()
    }

    /// Asks on a connection of its own and takes the answer, which must come at once.
    pub fn ask<R: TryFromBody>(&mut self, version: i16, body: impl Into<RequestBody>) -> R {
        let connection = match self.default_connection {
            Some(connection) => connection,
            None => {
                let connection = self.connect();
                self.default_connection = Some(connection);
                connection
            }
        };
        self.ask_on(connection, version, body)
    }

    pub fn ask_on<R: TryFromBody>(
        &mut self,
        connection: ConnectionId,
        version: i16,
        body: impl Into<RequestBody>,
    ) -> R {
        self.send(connection, version, body);
        self.take(connection)
    }

    /// Takes the oldest answer, which must be there and of this type.
    pub fn take<R: TryFromBody>(&mut self, connection: ConnectionId) -> R {
        let closed = self.connections[&connection].closed.clone();
        let Some(body) = self.receive(connection) else {
            panic!("no answer (closed: {closed:?})");
        };
        let key = body.api_key();
        R::try_from_body(body).unwrap_or_else(|| panic!("an answer of another API: {key:?}"))
    }

    fn connection(&mut self, connection: ConnectionId) -> &mut Connection {
        self.connections
            .get_mut(&connection)
            .expect("the connection is open")
    }

    // ---- disk work ----

    pub fn hold(&mut self, hold: Hold) {
        self.hold = hold;
    }

    /// How much disk work is kept back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Carries out the piece of held work at this place; the rest stays where it is.
    pub fn release_one(&mut self, at: usize) {
        let (op, work) = self.held.remove(at).expect("there is held work");
        self.due.push_back((op, work));
        self.carry_out();
    }

    /// Carries out all that is held, oldest first, and holds nothing any more.
    pub fn release(&mut self) {
        self.hold = Hold::Nothing;
        while !self.held.is_empty() {
            self.release_one(0);
        }
    }

    pub fn fail_one(&mut self, at: usize) {
        let (op, _) = self.held.remove(at).expect("there is held work");
        let error = "the disk said no".to_owned();
        self.input(Input::DiskFailed { op, error });
    }

    /// The kind of each piece of held work.
    pub fn held_kinds(&self) -> Vec<&'static str> {
        let kind = |(_, work): &(OpId, DiskOp)| match work {
            DiskOp::Append(_) => "append",
            DiskOp::Steps(_) => "steps",
            DiskOp::LookupTimestamp(_) => "lookup",
            DiskOp::ReadBatches(_) => "read",
            DiskOp::Compact(_) => "compact",
        };
        self.held.iter().map(kind).collect()
    }

    fn done(&self, op: OpId, work: &DiskOp) -> Input {
        match execute(&*self.disk, work) {
            Ok(outcome) => Input::DiskDone { op, outcome },
            Err(error) => match work {
                DiskOp::Append(_) | DiskOp::Steps(_) => panic!("{work:?} failed: {error}"),
                _ => Input::DiskFailed {
                    op,
                    error: error.to_string(),
                },
            },
        }
    }

    // ---- slow connections ----

    /// Answers are not encoded until [`Host::send_answers`].
    pub fn hold_answers(&mut self) {
        self.unsent.get_or_insert_default();
    }

    /// Encodes and sends the answers that were held, and holds none any more.
    pub fn send_answers(&mut self) {
        let slow = std::mem::take(&mut self.slow);
        for answer in slow
            .into_iter()
            .chain(self.unsent.take().into_iter().flatten())
        {
            self.encode(*answer);
        }
    }

    /// Encodes and sends what was held for others, and goes on holding for this connection alone.
    pub fn send_answers_but(&mut self, slow: ConnectionId) {
        let unsent = self.unsent.take().unwrap_or_default();
        let (keep, send): (VecDeque<_>, VecDeque<_>) =
            unsent.into_iter().partition(|a| a.connection == slow);
        self.slow = keep;
        for answer in send {
            self.encode(*answer);
        }
    }

    /// Takes one answer that is held, for a test that encodes it itself.
    pub fn take_answer(&mut self) -> Box<Answer> {
        let unsent = self.unsent.as_mut().expect("answers are held");
        unsent.pop_front().expect("an answer was emitted")
    }

    // ---- the broker ----

    pub fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        self.take_effects();
        while let Some((op, work)) = self.due.pop_front() {
            let done = self.done(op, &work);
            self.broker.handle(self.now, done);
            self.take_effects();
        }
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.broker.poll_effect() {
            match effect {
                Effect::Answer(answer) => match &mut self.unsent {
                    Some(unsent) => unsent.push_back(answer),
                    None => self.encode(*answer),
                },
                Effect::Disk { op, work } => {
                    let is_append = matches!(work, DiskOp::Append(_));
                    match self.hold {
                        Hold::Nothing => self.due.push_back((op, work)),
                        Hold::Appends if !is_append => self.due.push_back((op, work)),
                        _ => self.held.push_back((op, work)),
                    }
                }
                Effect::Close { connection, reason } => {
                    if let Some(connection) = self.connections.get_mut(&connection) {
                        connection.closed = Some(reason.to_owned());
                    }
                }
                Effect::Log { level, message } => self.logs.push((level, message)),
                Effect::Stopped => self.stopped = true,
            }
        }
    }

    fn encode(&mut self, answer: Answer) {
        let connection = answer.connection;
        let chunks = answer.encode(&*self.disk).expect("the answer is encoded");
        let frame = assemble(&chunks, &self.disk);
        self.deliver(connection, frame);
    }

    pub fn deliver(&mut self, connection: ConnectionId, frame: Bytes) {
        let Some(connection) = self.connections.get_mut(&connection) else {
            return;
        };
        assert!(connection.closed.is_none(), "an answer after the close");
        let length = i32::from_be_bytes(frame[..4].try_into().expect("a length"));
        assert_eq!(length as usize, frame.len() - 4, "the length prefix");
        let (correlation, key, version) = connection
            .unanswered
            .pop_front()
            .expect("somebody waits for an answer");
        let frame = frame.slice(frame::LENGTH_PREFIX..);
        // A refused version of ApiVersions is answered in version 0.
        let version = match key {
            ApiKey::ApiVersions if !(0..=4).contains(&version) => 0,
            _ => version,
        };
        let (header, body) = frame::decode_response(frame, key, version)
            .unwrap_or_else(|error| panic!("{key:?} v{version}: {error}"));
        assert_eq!(
            header.correlation_id, correlation,
            "answers leave in the order of the requests"
        );
        connection.answers.push_back(body);
    }

    // ---- ends and beginnings ----

    pub fn shut_down(&mut self) {
        self.input(Input::ShutDown);
        assert!(self.stopped, "the shutdown has ended");
    }

    /// Opens a broker on this one's disk, as it is.
    pub fn reopen(self) -> Host {
        self.try_reopen().expect("the broker opens again")
    }

    pub fn try_reopen(self) -> Result<Host, OpenError> {
        let mut now = self.now;
        now.instant = Instant(now.instant.0 + 1);
        now.wall_ms += 1_000;
        open_host(self.disk, self.properties, now)
    }

    /// The power goes and comes back, and the broker with it.
    pub fn crash(self, seed: u64) -> Host {
        self.disk.crash(seed);
        self.reopen()
    }
}

/// An answer's bytes, with what it takes from files.
pub fn assemble(chunks: &[Chunk], disk: &MemoryDisk) -> Bytes {
    let mut frame = BytesMut::new();
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(bytes) => frame.extend_from_slice(bytes),
            Chunk::File {
                file,
                position,
                len,
            } => {
                let mut bytes = vec![0; *len as usize];
                let read = disk.read_at(file, *position, &mut bytes);
                assert_eq!(read.expect("the file is there"), bytes.len());
                frame.extend_from_slice(&bytes);
            }
        }
    }
    frame.freeze()
}

/// The response type of an API out of the answer of any.
pub trait TryFromBody: Sized {
    fn try_from_body(body: ResponseBody) -> Option<Self>;
}

macro_rules! responses {
    ($($name:ident => $response:ident,)*) => {
        $(impl TryFromBody for oncelog_wire::messages::$response {
            fn try_from_body(body: ResponseBody) -> Option<Self> {
                match body {
                    ResponseBody::$name(body) => Some(body),
                    _ => None,
                }
            }
        })*
    };
}

responses! {
    Produce => ProduceResponse,
    Fetch => FetchResponse,
    ListOffsets => ListOffsetsResponse,
    Metadata => MetadataResponse,
    OffsetCommit => OffsetCommitResponse,
    OffsetFetch => OffsetFetchResponse,
    FindCoordinator => FindCoordinatorResponse,
    JoinGroup => JoinGroupResponse,
    Heartbeat => HeartbeatResponse,
    LeaveGroup => LeaveGroupResponse,
    SyncGroup => SyncGroupResponse,
    DescribeGroups => DescribeGroupsResponse,
    ListGroups => ListGroupsResponse,
    ApiVersions => ApiVersionsResponse,
    CreateTopics => CreateTopicsResponse,
    DeleteTopics => DeleteTopicsResponse,
    DeleteRecords => DeleteRecordsResponse,
    InitProducerId => InitProducerIdResponse,
    AddPartitionsToTxn => AddPartitionsToTxnResponse,
    AddOffsetsToTxn => AddOffsetsToTxnResponse,
    EndTxn => EndTxnResponse,
    WriteTxnMarkers => WriteTxnMarkersResponse,
    TxnOffsetCommit => TxnOffsetCommitResponse,
    DescribeProducers => DescribeProducersResponse,
    DescribeTransactions => DescribeTransactionsResponse,
    ListTransactions => ListTransactionsResponse,
    OffsetForLeaderEpoch => OffsetForLeaderEpochResponse,
    DescribeConfigs => DescribeConfigsResponse,
    AlterConfigs => AlterConfigsResponse,
    DescribeLogDirs => DescribeLogDirsResponse,
    CreatePartitions => CreatePartitionsResponse,
    DeleteGroups => DeleteGroupsResponse,
    IncrementalAlterConfigs => IncrementalAlterConfigsResponse,
    OffsetDelete => OffsetDeleteResponse,
    DescribeCluster => DescribeClusterResponse,
    ListConfigResources => ListConfigResourcesResponse,
    DescribeTopicPartitions => DescribeTopicPartitionsResponse,
    ConsumerGroupHeartbeat => ConsumerGroupHeartbeatResponse,
    ConsumerGroupDescribe => ConsumerGroupDescribeResponse,
}
