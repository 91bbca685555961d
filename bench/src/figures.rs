//! What a measurement found: named numbers, printed as one JSON object.

use serde_json::{Map, Value};

/// Names end with their unit.
#[derive(Debug, Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    pub fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value.into());
    }

    pub fn json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}
