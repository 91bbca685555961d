//! Some partitions of some topics, as arguments name them.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::admin::Cluster;
use crate::admin::offsets::TopicPartition;
use crate::failure::Failure;

/// `TOPIC`, or `TOPIC:0,1` for some of its partitions, as Kafka's own tool has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub topic: String,
    /// Empty for all.
    pub partitions: Vec<i32>,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, partitions) = match text.split_once(':') {
            None => (text, Vec::new()),
            Some((topic, list)) => {
                let number = |text: &str| text.parse().ok().filter(|&number: &i32| number >= 0);
                let numbers: Option<Vec<i32>> = list.split(',').map(number).collect();
                (
                    topic,
                    numbers.ok_or("expected TOPIC or TOPIC:PARTITION,PARTITION")?,
                )
            }
        };
        if topic.is_empty() {
            return Err("the topic is empty".into());
        }
        Ok(Scope {
            topic: topic.into(),
            partitions,
        })
    }
}

/// The partitions that the scopes name; all of them must exist.
pub fn partitions(
    cluster: &mut Cluster<'_>,
    scopes: &[Scope],
) -> Result<BTreeSet<TopicPartition>, Failure> {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.topic.as_str()).collect();
    let topics = cluster.existing_topics(&names)?;
    let mut all = BTreeSet::new();
    for scope in scopes {
        let existing: BTreeSet<i32> = topics
            .iter()
            .filter(|topic| topic.name.as_ref() == Some(&scope.topic))
            .flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|partition| partition.partition_index)
            })
            .collect();
        if let Some(missing) = scope
            .partitions
            .iter()
            .find(|number| !existing.contains(number))
        {
            return Err(Failure::refused(format!(
                "topic {} has no partition {missing}",
                scope.topic
            ))
            .why(format!(
                "it has {} partitions, numbered from 0",
                existing.len()
            )));
        }
        let chosen = if scope.partitions.is_empty() {
            existing
        } else {
            scope.partitions.iter().copied().collect()
        };
        all.extend(
            chosen
                .into_iter()
                .map(|partition| (scope.topic.clone(), partition)),
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let scope = |topic: &str, partitions: &[i32]| {
            Ok(Scope {
                topic: topic.into(),
                partitions: partitions.to_vec(),
            })
        };
        assert_eq!("a".parse(), scope("a", &[]));
        assert_eq!("a:0".parse(), scope("a", &[0]));
        assert_eq!("a.b:0,12".parse(), scope("a.b", &[0, 12]));
        for text in ["", ":0", "a:", "a:x", "a:0,", "a:-1"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }
}
