//! `oncelog consume`: print records.
//!
//! Without a group it reads partitions that it assigns itself, and commits nothing. With `-g` it joins
//! the group and commits an offset only after the record was written and flushed, so that a record is
//! never skipped; after a crash some may be printed again.
//!
//! librdkafka does not say which records read_committed hides. `hidden` counts them at the end, from
//! the gaps that `seen` noted, and `transactions` shows them; both read on their own (`fates`).

mod fates;
mod hidden;
mod print;
mod read;
mod seen;
mod start;
mod transactions;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::client::{self, Quiet, Trouble};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::offset::Position;
use crate::options::Options;
use crate::reach;
use crate::template::{TOKENS_HELP, Template};

use print::Style;
use read::{Partitions, Reader};
use transactions::Wanted;

/// Read records from topics and print them
#[derive(ClapArgs, Debug)]
#[command(after_help = TOKENS_HELP)]
pub struct Args {
    /// Topics to read
    #[arg(value_name = "TOPIC", required_unless_present = "topic_option")]
    topics: Vec<String>,

    /// A topic to read, as kcat has it
    #[arg(short = 't', long = "topic", id = "topic_option", value_name = "TOPIC")]
    topic_option: Vec<String>,

    /// Where to start: start, end, +N (N after the start), -N (N before the end), @TIMESTAMP
    /// (milliseconds, 2026-01-31T12:00:00Z or -1h30m), or an offset. With -g: only start or end,
    /// and only where the group has committed nothing
    #[arg(
        short,
        long,
        value_name = "WHERE",
        default_value = "start",
        allow_hyphen_values = true
    )]
    offset: Position,

    /// Stop after this many records
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,

    /// Read as a member of this consumer group
    #[arg(short, long)]
    group: Option<String>,

    /// Read only these partitions
    #[arg(short, long, value_name = "PARTITION", value_delimiter = ',')]
    partition: Vec<i32>,

    /// How to print a record [default: '%v\n']
    #[arg(short = 'f', long, value_name = "TEMPLATE")]
    template: Option<Template>,

    /// Whether to show records of transactions that were aborted or are still open
    #[arg(long, value_enum, default_value_t = Isolation::ReadCommitted)]
    isolation: Isolation,

    /// Show all records up to the end and then stop, each with what became of its transaction:
    /// %X in a template, "transaction" in JSON [default template: '%X\t%v\n']
    #[arg(long, conflicts_with_all = ["group", "isolation"])]
    show_transactions: bool,

    /// Stop at the end of every partition instead of waiting for more
    #[arg(short, long)]
    exit_at_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Isolation {
    #[value(name = "read_committed")]
    ReadCommitted,
    #[value(name = "read_uncommitted")]
    ReadUncommitted,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        }
    }
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let style = style(options, args)?;
    let mut topics: Vec<&str> = Vec::new();
    for topic in args.topics.iter().chain(&args.topic_option) {
        if !topics.contains(&topic.as_str()) {
            topics.push(topic);
        }
    }
    let interrupt = Interrupt::install()?;
    if args.show_transactions {
        let wanted = Wanted {
            topics: &topics,
            partitions: &args.partition,
            offset: args.offset,
            count_max: args.count,
        };
        return transactions::show(options, &wanted, &style, &interrupt);
    }
    reach::first_reachable(options)?;
    let mut reader = Reader::new(style, args.count, interrupt);
    match &args.group {
        Some(group) => read_as_member(options, args, &topics, group, &mut reader)?,
        // At the end of a partition rdkafka names its number but not its topic, so `-e` reads one
        // topic after another; the order between topics is nobody's promise.
        None if args.exit_at_end => {
            for topic in topics {
                read_assigned(options, args, &[topic], &mut reader)?;
            }
        }
        None => read_assigned(options, args, &topics, &mut reader)?,
    }
    tracing::info!("{} records read", reader.printed());
    match args.isolation {
        Isolation::ReadCommitted => hidden::report(options, reader.seen(), reader.stopped_by()),
        Isolation::ReadUncommitted => Ok(()),
    }
}

fn style(options: &Options, args: &Args) -> Result<Style, Failure> {
    match (&args.template, options.json()) {
        (Some(_), true) => Err(Failure::usage("-f and --format json exclude each other")),
        (None, true) => Ok(Style::Json),
        (Some(template), false) => Ok(Style::Template(template.clone())),
        (None, false) => {
            let template = match args.show_transactions {
                true => "%X\\t%v\\n",
                false => "%v\\n",
            };
            Ok(Style::Template(template.parse().map_err(Failure::usage)?))
        }
    }
}

fn consumer(
    options: &Options,
    args: &Args,
    forced: &[(&str, &str)],
) -> Result<(BaseConsumer<Quiet>, Trouble), Failure> {
    let mut all = vec![
        ("isolation.level", args.isolation.name()),
        ("enable.partition.eof", "true"),
        // A bit that flipped on disk is an error here, not a record.
        ("check.crcs", "true"),
        ("enable.auto.offset.store", "false"),
    ];
    all.extend_from_slice(forced);
    let context = Quiet::default();
    let trouble = context.trouble.clone();
    // librdkafka's own second of rest whenever its queue is full costs most of the throughput.
    let config = client::config(options, &[("fetch.queue.backoff.ms", "20")], &all);
    Ok((client::create(&config, context)?, trouble))
}

fn read_assigned(
    options: &Options,
    args: &Args,
    topics: &[&str],
    reader: &mut Reader,
) -> Result<()> {
    let forced = [
        // An offset that has been deleted meanwhile is an error to report, not a reason to jump.
        ("auto.offset.reset", "error"),
        ("enable.auto.commit", "false"),
        // librdkafka assigns nothing without a name for a group. Nothing is joined or committed.
        ("group.id", "oncelog-consume"),
    ];
    let (consumer, trouble) = consumer(options, args, &forced)?;
    let mut assignment = rdkafka::TopicPartitionList::new();
    for topic in topics {
        let partitions = start::partitions(&consumer, topic, &args.partition, options, &trouble)?;
        for partition in partitions {
            let offset =
                start::resolve(&consumer, topic, partition, args.offset, options, &trouble)?;
            reader.begin(topic, partition, offset);
            assignment.add_partition_offset(topic, partition, offset)?;
        }
    }
    consumer.assign(&assignment)?;
    let count = assignment.count();
    reader.read(
        &consumer,
        &trouble,
        Partitions::Fixed { count },
        args.exit_at_end,
    )
}

fn read_as_member(
    options: &Options,
    args: &Args,
    topics: &[&str],
    group: &str,
    reader: &mut Reader,
) -> Result<()> {
    if !args.partition.is_empty() {
        return Err(Failure::usage("-p and -g exclude each other")
            .why("the group decides which member reads which partition")
            .into());
    }
    if args.exit_at_end && topics.len() > 1 {
        return Err(Failure::usage("-e with -g takes one topic")
            .next("run it once for each topic")
            .into());
    }
    let reset = match args.offset {
        Position::Start => "earliest",
        Position::End => "latest",
        _ => {
            return Err(Failure::usage("with -g, -o takes only start or end")
                .why("it only applies where the group has committed nothing")
                .next(format!(
                    "`oncelog group reset-offsets {group} ...` moves committed offsets"
                ))
                .into());
        }
    };
    let forced = [
        ("group.id", group),
        ("auto.offset.reset", reset),
        ("enable.auto.commit", "true"),
    ];
    let (consumer, trouble) = consumer(options, args, &forced)?;
    for topic in topics {
        client::topic_metadata(&consumer, topic, options, &trouble)?;
    }
    consumer.subscribe(topics)?;
    reader.read(&consumer, &trouble, Partitions::OfGroup, args.exit_at_end)
}
