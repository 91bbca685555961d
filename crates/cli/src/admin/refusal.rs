//! Kafka's error codes as failures: the code's name, the broker's own words if it sent any, and what
//! to do next where that is known.

use oncelog_wire::ErrorCode;

use crate::failure::Failure;

/// Ok unless `code` is an error.
pub fn check(
    code: i16,
    message: Option<&str>,
    what: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if code == 0 {
        Ok(())
    } else {
        Err(refusal(what(), code, message))
    }
}

pub fn refusal(what: String, code: i16, message: Option<&str>) -> Failure {
    let error = ErrorCode::from_code(code);
    // A code from the future is shown as the number that came.
    let name = if error.code() == code {
        error.kafka_name().to_owned()
    } else {
        format!("error {code}")
    };
    let words = message
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| error.message());
    let failure = Failure::refused(what).why(format!("{name}: {words}"));
    match next(error) {
        Some(next) => failure.next(next),
        None => failure,
    }
}

fn next(error: ErrorCode) -> Option<&'static str> {
    Some(match error {
        ErrorCode::UnknownTopicOrPartition => "`oncelog topic list` shows what exists",
        ErrorCode::TopicAlreadyExists => "--if-not-exists accepts a topic that is there",
        ErrorCode::GroupIdNotFound => "`oncelog group list` shows what exists",
        ErrorCode::NonEmptyGroup => {
            "stop the group's members first; `oncelog group describe` lists them"
        }
        ErrorCode::GroupSubscribedToTopic => "stop the members that read this topic first",
        ErrorCode::UnknownMemberId => {
            "the group has members; stop them first, `oncelog group describe` lists them"
        }
        ErrorCode::InvalidReplicationFactor => {
            "it cannot exceed the number of brokers, which `oncelog cluster info` lists"
        }
        ErrorCode::TransactionalIdNotFound => "`oncelog txn list` shows what exists",
        ErrorCode::OffsetOutOfRange => "`oncelog topic describe --offsets` shows first and last",
        ErrorCode::LeaderNotAvailable
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::CoordinatorLoadInProgress => "try again in a moment",
        ErrorCode::PolicyViolation => "the cluster's own policy forbids it",
        ErrorCode::UnsupportedVersion => {
            "the broker is too old for this, or it is switched off there"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_come_first() {
        let failure = refusal("cannot x".into(), 36, Some("Topic 'a' already exists."));
        assert_eq!(
            failure.why.unwrap(),
            "TOPIC_ALREADY_EXISTS: Topic 'a' already exists."
        );
        let silent = refusal("cannot x".into(), 3, None);
        assert!(
            silent
                .why
                .unwrap()
                .starts_with("UNKNOWN_TOPIC_OR_PARTITION: ")
        );
        assert!(
            refusal("x".into(), 9999, None)
                .why
                .unwrap()
                .starts_with("error 9999: ")
        );
        assert!(check(0, None, || unreachable!()).is_ok());
    }
}
