//! What a coordinator may know of topics: a view, handed in where it is needed.

use oncelog_wire::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicView {
    pub id: Uuid,
    /// How many partitions the topic has; they are numbered from 0.
    pub partitions: i32,
}

pub trait Topics {
    fn topic(&self, name: &str) -> Option<TopicView>;

    /// The topic's name.
    fn topic_by_id(&self, id: Uuid) -> Option<&str>;

    /// Every topic's name, in a fixed order.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;

    /// Rises with every change of any topic: an equal epoch means that nothing changed.
    fn epoch(&self) -> u64;
}
