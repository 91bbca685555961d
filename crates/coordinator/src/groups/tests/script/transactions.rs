//! The script's commands of transactions.
//!
//! ```text
//! txn-commit CLIENT TOPIC/PARTITION=OFFSET... [pid=N] [version=V] [gen=N] [id=ID] [instance=I]
//!      [meta=TEXT] [group=G]                    pid=7 unless named
//! end-txn commit|abort [pid=N]                  the marker is written
//! ```
//! A client commits as nobody in particular unless `gen` or `id` is given; `gen=own` and `id=own`
//! are what it has. A record of a transaction is shown with the producer's id.

use super::{Args, Result, Script, caller};
use oncelog_wire::messages::TxnOffsetCommitRequest;
use oncelog_wire::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};

impl Script {
    pub(super) fn txn_commit(&mut self, args: &Args) -> Result {
        let name = args.positional()[0];
        let caller = caller(args, 5, name)?;
        let client = self.client(name);
        let mut topics = Vec::new();
        for (place, offset) in args.pairs().filter(|(key, _)| key.contains('/')) {
            let (topic, partition) = place.split_once('/').expect("filtered");
            topics.push(TxnOffsetCommitRequestTopic {
                name: topic.to_owned(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: partition.parse()?,
                    committed_offset: offset.parse()?,
                    committed_metadata: args.get("meta").map(|text| match text {
                        "long" => "x".repeat(4_097),
                        text => text.to_owned(),
                    }),
                    ..Default::default()
                }],
                ..Default::default()
            });
        }
        let producer_id: i64 = args.number("pid", 7)?;
        let request = TxnOffsetCommitRequest {
            transactional_id: "x".to_owned(),
            group_id: args.group(),
            producer_id,
            producer_epoch: 3,
            generation_id: match args.get("gen") {
                Some("own") => client.generation,
                _ => args.number("gen", -1)?,
            },
            member_id: match args.get("id") {
                Some("own") => client.member_id,
                _ => args.id().unwrap_or_default(),
            },
            group_instance_id: args.get("instance").map(str::to_owned),
            topics,
            ..Default::default()
        };
        let mut transactional = None;
        let shown = self.ask(
            name,
            caller.api_version,
            |shard, now, to, topics| {
                let outcome = shard.txn_offset_commit(now, to, &caller, &request, topics);
                transactional = outcome.transactional;
                outcome
            },
            true,
        )?;
        if let Some(transactional) = transactional {
            assert_eq!(transactional, (producer_id, 3));
        }
        Ok(shown.replace("+ offset", &format!("+ in {producer_id}: offset")))
    }

    pub(super) fn end_txn(&mut self, args: &Args) -> Result {
        let commit = match args.positional()[0] {
            "commit" => true,
            "abort" => false,
            other => return Err(format!("a transaction does not end with {other}").into()),
        };
        let producer_id = args.number("pid", 7)?;
        self.host.end_transaction(producer_id, commit);
        Ok(String::new())
    }
}
