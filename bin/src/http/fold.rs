//! Field names without regard to case, as Go reads them: the docker package for Python sends
//! `{"Mode":{"replicated":…}}` and relies on that.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// A JSON value that is read so. Keys of maps (labels) stay as they are; those of objects with known fields fold.
pub(super) struct Folded(pub(super) Value);

impl IntoDeserializer<'_, Error> for Folded {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Give each key the spelling of the field that it means, unless the object has that already.
fn fold(object: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let meant = |key: &str| {
        let field = fields.iter().find(|field| field.eq_ignore_ascii_case(key))?;
        (!object.contains_key(*field)).then(|| (*field).to_owned())
    };
    let renamed: Vec<_> = object.keys().map(|key| meant(key)).collect();
    let mut folded = Map::new();
    for ((key, value), renamed) in object.into_iter().zip(renamed) {
        match renamed {
            // The second spelling of one field stays as it is, and is then refused as unknown.
            Some(field) if !folded.contains_key(&field) => folded.insert(field, value),
            _ => folded.insert(key, value),
        };
    }
    folded
}

impl<'de> Deserializer<'de> for Folded {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Folded));
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Value::Object(fields) => {
                let mut fields =
                    MapDeserializer::new(fields.into_iter().map(|(key, value)| (key, Folded(value))));
                let value = visitor.visit_map(&mut fields)?;
                fields.end().map(|()| value)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(object) => Self(Value::Object(fold(object, fields))).deserialize_any(visitor),
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &"an object")),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}
