//! The floor: **a stub for measuring, not a broker**. It shows what the machine and the client leave
//! room for, so that a broker's figures can be held against something.
//!
//! One thread, one epoll loop. It takes the record bytes of a Produce request, writes them to a
//! file without looking at them (but for the offset, which it puts in), and acknowledges; with
//! `--fsync` it writes for every socket that is ready, syncs once, and acknowledges them all.
//! Fetch sends file ranges. It checks nothing, recovers nothing, knows no groups, no transactions,
//! no retention, no errors to speak of: a request that it does not know ends it.

mod answers;
mod connection;
mod files;
mod requests;

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use answers::{Answerer, Parked};
use connection::Connection;

#[derive(clap::Args)]
pub struct Args {
    /// Where it listens, on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Where its files go.
    #[arg(long)]
    dir: PathBuf,
    /// Acknowledge only what fdatasync has put on the disk.
    #[arg(long)]
    fsync: bool,
}

/// The listener's number among the events; connections count from 0.
const LISTENER: u64 = u64::MAX;

const EVENTS_MAX: usize = 256;

pub fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    let listener = TcpListener::bind(("127.0.0.1", args.port))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut floor = Floor {
        epoll,
        listener,
        connections: HashMap::new(),
        accepted: 0,
        answerer: Answerer::new(args.dir.clone(), args.port),
        parked: Vec::new(),
    };
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        let timeout = floor.patience();
        let wait = epoll::wait(
            &floor.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        );
        match wait {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => floor.accept()?,
                number => floor.serve(number)?,
            }
        }
        if args.fsync {
            floor.answerer.files.sync()?;
        }
        floor.answer_parked()?;
        floor.send()?;
    }
}

struct Floor {
    epoll: std::os::fd::OwnedFd,
    listener: TcpListener,
    connections: HashMap<u64, Connection>,
    accepted: u64,
    answerer: Answerer,
    /// Fetches that wait for records.
    parked: Vec<(u64, Parked)>,
}

impl Floor {
    /// Until the first parked fetch must be answered; `None` if none is parked.
    fn patience(&self) -> Option<Timespec> {
        let first = self
            .parked
            .iter()
            .map(|(_, parked)| parked.deadline)
            .min()?;
        let wait = first.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        wait.try_into().ok()
    }

    fn accept(&mut self) -> Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let number = self.accepted;
            self.accepted += 1;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&self.epoll, &stream, EventData::new_u64(number), flags)?;
            self.connections.insert(number, Connection::new(stream));
        }
        Ok(())
    }

    /// Reads what there is and handles every whole request.
    fn serve(&mut self, number: u64) -> Result<()> {
        let Some(connection) = self.connections.get_mut(&number) else {
            return Ok(());
        };
        let open = connection.read_all(|request, answers| {
            if let Some(parked) = self.answerer.handle(request, answers)? {
                self.parked.push((number, parked));
            }
            Ok(())
        })?;
        if !open {
            self.connections.remove(&number);
            self.parked.retain(|(of, _)| *of != number);
        }
        Ok(())
    }

    fn answer_parked(&mut self) -> Result<()> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let mut still = Vec::new();
        for (number, parked) in std::mem::take(&mut self.parked) {
            let Some(connection) = self.connections.get_mut(&number) else {
                continue;
            };
            let due = now >= parked.deadline;
            match self.answerer.fetch(&parked, due, &mut connection.answers)? {
                true => {}
                false => still.push((number, parked)),
            }
        }
        self.parked = still;
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        // A client that has gone is found out when its socket is read.
        for connection in self.connections.values_mut() {
            connection.send()?;
        }
        Ok(())
    }
}
