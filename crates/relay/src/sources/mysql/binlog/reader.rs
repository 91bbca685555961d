//! The thread that reads the binlog: it connects as a replica does, and feeds the queue until it is
//! stopped or something fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mysql::prelude::Queryable;
use mysql::{BinlogRequest, Conn, Error};

use super::super::connection::{Database, failed};
use super::queue::Queue;
use super::transactions::{Failure, Step, Transactions};
use crate::source::SourceError;

/// How often the server says that it is there when it has nothing to send, in nanoseconds. It is also
/// how long a stopped thread may linger.
const SERVER_HEARTBEAT: u64 = 1_000_000_000;

pub(super) struct Reader {
    pub database: Database,
    pub replica_id: u32,
    pub exactly_once: bool,
    pub queue: Arc<Queue>,
    pub transactions: Transactions,
    /// The server's name for the connection, so that it can be ended from another one.
    pub connection: Arc<AtomicU32>,
}

impl Reader {
    /// Until it is stopped or fails; the queue learns why.
    pub fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        let _end = End(&queue);
        loop {
            match self.stream() {
                Ok(()) => {}
                Err(Failure::Stopped) => return,
                Err(Failure::Source(error)) => return queue.end(error),
            }
        }
    }

    /// One connection's events. Returns to begin another one.
    fn stream(&mut self) -> Result<(), Failure> {
        let mut conn = self.database.connect()?;
        self.connection
            .store(conn.connection_id(), Ordering::Relaxed);
        prepare(&mut conn)?;
        let place = self.transactions.place();
        let request = BinlogRequest::new(self.replica_id)
            .with_filename(place.file.as_bytes().to_vec())
            .with_pos(place.offset);
        self.transactions.begin_stream();
        let stream = conn.get_binlog_stream(request);
        for event in stream.map_err(|error| self.failed(error))? {
            let event = event.map_err(|error| self.failed(error))?;
            if self.queue.is_stopped() {
                return Err(Failure::Stopped);
            }
            match self.transactions.take(&event)? {
                Step::Next => {}
                Step::Again => return Ok(()),
            }
        }
        let say = "the server ended the stream of its binlog".to_owned();
        Err(Failure::Source(SourceError::Lost(say)))
    }

    fn failed(&self, error: Error) -> SourceError {
        let place = self.transactions.place();
        let at = format!("reading the binlog at {}:{}", place.file, place.offset);
        let Error::MySqlError(server) = &error else {
            return failed(&at, error);
        };
        let said = &server.message;
        if said.contains("same server_uuid/server_id") {
            let id = self.replica_id;
            let say = format!(
                "{at}: another replica with the id {id} has connected. It may be another instance \
                of this relay; if it is not, set database.server.id to an id that is free"
            );
            // Exactly once, Kafka says which of the two is to go on, and an old one that woke up is
            // not it. Without that they would throw each other out for ever.
            return match self.exactly_once {
                true => SourceError::Lost(say),
                false => SourceError::Refused(say),
            };
        }
        if server.code != CANNOT_READ {
            return failed(&at, error);
        }
        SourceError::Refused(format!(
            "{at}: the server has no such place: {said}. The binlog was purged, or it is another \
            server's: what was written in between cannot be told from this; bring source and topics \
            together by hand, then delete the relay's progress"
        ))
    }
}

/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`
const CANNOT_READ: u16 = 1236;

/// What a replica says of itself, in the words of MariaDB, of MySQL, and of MySQL since 8.0.26.
fn prepare(conn: &mut Conn) -> Result<(), SourceError> {
    let said = [
        format!("SET @master_heartbeat_period = {SERVER_HEARTBEAT}"),
        format!("SET @source_heartbeat_period = {SERVER_HEARTBEAT}"),
        // Begins of transactions as they are in the file.
        "SET @mariadb_slave_capability = 4".to_owned(),
    ];
    for one in said {
        conn.query_drop(one)
            .map_err(|error| failed("preparing to read the binlog", error))?;
    }
    Ok(())
}

/// However the thread ends, a panic in the library included, the relay learns that it has.
struct End<'a>(&'a Queue);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let say = "the thread that reads the binlog has ended".to_owned();
        self.0.end(SourceError::Lost(say));
    }
}
