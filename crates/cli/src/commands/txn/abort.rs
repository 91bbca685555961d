//! `oncelog txn abort`: ends a hanging transaction in one partition.
//!
//! The marker goes to the partition's leader, past the coordinator. Of a transaction that its
//! coordinator will end this would drop a part, so that needs `--force`.

use std::collections::BTreeSet;
use std::io::{self, Write};

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::json;

use crate::admin::Cluster;
use crate::admin::offsets::TopicPartition;
use crate::admin::transactions::{self, Marker, Open, Prospect};
use crate::failure::Failure;
use crate::options::Options;
use crate::output;

/// Abort a hanging transaction in one partition
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The topic
    topic: String,

    /// The partition
    partition: i32,

    /// Where the transaction starts, as find-hanging and describe-producers show it
    #[arg(
        long,
        value_name = "OFFSET",
        conflicts_with = "producer_id",
        required_unless_present = "producer_id"
    )]
    start_offset: Option<i64>,

    /// The producer, where describe-producers is not to be had
    #[arg(
        long,
        value_name = "ID",
        requires = "producer_epoch",
        requires = "coordinator_epoch"
    )]
    producer_id: Option<i64>,

    /// The producer's epoch
    #[arg(long, value_name = "EPOCH", requires = "producer_id")]
    producer_epoch: Option<i16>,

    /// The epoch of the coordinator that ended the producer's last transaction; -1 if none did
    #[arg(
        long,
        value_name = "EPOCH",
        requires = "producer_id",
        allow_negative_numbers = true
    )]
    coordinator_epoch: Option<i32>,

    /// Abort it even if its coordinator is going to end it: the rest of that transaction may be
    /// committed
    #[arg(long)]
    force: bool,
}

pub fn run(options: &Options, args: &Args) -> Result<()> {
    let mut cluster = Cluster::connect(options)?;
    let place = (args.topic.clone(), args.partition);
    let marker = marker(&mut cluster, args, &place)?;
    transactions::abort(&mut cluster, &place, &marker)?;
    let (topic, partition) = place;
    let producer_id = marker.producer_id;
    if options.json() {
        let done = json!({"topic": topic, "partition": partition, "producer_id": producer_id});
        return Ok(output::print_json(&done)?);
    }
    writeln!(
        io::stdout().lock(),
        "aborted the transaction of producer {producer_id} in {topic} partition {partition}"
    )?;
    Ok(())
}

fn marker(
    cluster: &mut Cluster<'_>,
    args: &Args,
    place: &TopicPartition,
) -> Result<Marker, Failure> {
    if let (Some(producer_id), Some(producer_epoch), Some(coordinator_epoch)) = (
        args.producer_id,
        args.producer_epoch,
        args.coordinator_epoch,
    ) {
        return Ok(Marker {
            producer_id,
            producer_epoch,
            coordinator_epoch,
        });
    }
    let start = args.start_offset.unwrap_or_default();
    let producers = transactions::producers(cluster, &BTreeSet::from([place.clone()]), None)?;
    let open = producers.values().flatten();
    let mut open = open.filter_map(|producer| Open::of(place, producer));
    let open = open.find(|open| open.producer.current_txn_start_offset == start);
    let open = open.ok_or_else(|| {
        let (topic, partition) = place;
        Failure::refused(format!(
            "no transaction is open in {topic} partition {partition} from offset {start} on"
        ))
        .next(format!(
            "`oncelog txn describe-producers {topic}:{partition}` shows what is"
        ))
    })?;
    if !args.force {
        let prospects = transactions::prospects(cluster, std::slice::from_ref(&open))?;
        prospects.iter().try_for_each(refuse_expected)?;
    }
    Ok(Marker {
        producer_id: open.producer.producer_id,
        // The protocol has 32 bits for it here, and 16 everywhere else.
        producer_epoch: i16::try_from(open.producer.producer_epoch).unwrap_or(i16::MAX),
        coordinator_epoch: open.producer.coordinator_epoch,
    })
}

fn refuse_expected(prospect: &Prospect) -> Result<(), Failure> {
    let Prospect::Expected { transactional_id } = prospect else {
        return Ok(());
    };
    Err(Failure::refused("this transaction does not hang")
        .why(format!(
            "{}; aborting it here would drop a part of it",
            prospect.reason()
        ))
        .next(format!(
            "`oncelog txn describe {transactional_id}` shows its state; a new producer with \
                 this id aborts it as a whole; --force aborts this partition all the same"
        )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_transaction_is_named_in_one_of_two_ways() {
        let parse = |words: &str| {
            let words = format!("abort t 1 {words}");
            Line::try_parse_from(words.split_whitespace()).map(|line| line.args)
        };
        let by_offset = parse("--start-offset 9").unwrap();
        assert_eq!((by_offset.start_offset, by_offset.force), (Some(9), false));
        let by_producer = parse("--producer-id 5 --producer-epoch 2 --coordinator-epoch -1");
        assert_eq!(by_producer.unwrap().coordinator_epoch, Some(-1));
        for words in [
            "",
            "--producer-id 5",
            "--producer-id 5 --producer-epoch 2",
            "--start-offset 9 --producer-id 5 --producer-epoch 2 --coordinator-epoch 0",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn what_its_coordinator_will_end_is_left_to_it() {
        let expected = Prospect::Expected {
            transactional_id: "x".into(),
        };
        let failure = refuse_expected(&expected).unwrap_err();
        assert!(failure.next.unwrap().contains("txn describe x"));
        assert!(refuse_expected(&Prospect::NoId).is_ok());
    }
}
