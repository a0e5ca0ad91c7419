use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    Event,
    fields::{Value, fields},
};

/// A record as one JSON object on one line, its fields in the order of the list.
pub(crate) fn line(event: &Event) -> String {
    // Texts and numbers under texts: there is nothing in it that JSON could not say.
    serde_json::to_string(&Line(fields(event))).unwrap_or_default()
}

struct Line(Vec<(&'static str, Value)>);

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            match value {
                Value::Text(text) => map.serialize_entry(name, text)?,
                Value::Number(number) => map.serialize_entry(name, number)?,
            }
        }
        map.end()
    }
}
