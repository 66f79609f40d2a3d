//! serde's deserializer out of values.

use lastword_core::value::Value;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::{ConvertError, kind_of};

type Result<T, E = ConvertError> = std::result::Result<T, E>;

/// Hands a value to whoever deserializes from it.
pub(super) struct FromValue(pub(super) Value);

impl<'de> Deserializer<'de> for FromValue {
    type Error = ConvertError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Text(text) => visitor.visit_string(text),
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Value::List(items) => {
                let mut rest = ItemsOf { at: 0, items: items.into_iter() };
                let value = visitor.visit_seq(&mut rest)?;
                match rest.items.len() {
                    0 => Ok(value),
                    left => Err(ConvertError::new(format_args!("{left} items too many"))),
                }
            }
            Value::Map(entries) => {
                visitor.visit_map(EntriesOf { value: None, entries: entries.into_iter() })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.0 {
            Value::Text(variant) => visitor.visit_enum(Variant { name: variant, content: None }),
            Value::Map(entries) => {
                let len = entries.len();
                let mut entries = entries.into_iter();
                match (entries.next(), len) {
                    (Some((name, content)), 1) => {
                        visitor.visit_enum(Variant { name, content: Some(content) })
                    }
                    _ => Err(ConvertError::new(format_args!(
                        "an enum is a map of one entry, not of {len}"
                    ))),
                }
            }
            other => Err(ConvertError::new(format_args!(
                "an enum is text or a map of one entry, not {}",
                kind_of(&other)
            ))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier
    }
}

struct ItemsOf {
    at: usize,
    items: std::vec::IntoIter<Value>,
}

impl<'de> de::SeqAccess<'de> for ItemsOf {
    type Error = ConvertError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(FromValue(item)).map(Some).map_err(|error| error.in_item(at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct EntriesOf {
    value: Option<(String, Value)>,
    entries: std::vec::IntoIter<(String, Value)>,
}

impl<'de> de::MapAccess<'de> for EntriesOf {
    type Error = ConvertError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some((name, value)) = self.entries.next() else { return Ok(None) };
        let key = seed.deserialize(FromKey(&name)).map_err(|error| error.in_field(&name));
        self.value = Some((name, value));
        key.map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let entry = self.value.take().expect("invariant: serde asks for a key before its value");
        let (name, value) = entry;
        seed.deserialize(FromValue(value)).map_err(|error| error.in_field(&name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A map key is text; numbers and booleans are read from it.
struct FromKey<'a>(&'a str);

macro_rules! parsed_keys {
    ($($method:ident: $type:ty => $visit:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self.0.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => visitor.visit_str(self.0),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for FromKey<'_> {
    type Error = ConvertError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_str(self.0)
    }

    parsed_keys! {
        deserialize_bool: bool => visit_bool,
        deserialize_i8: i64 => visit_i64,
        deserialize_i16: i64 => visit_i64,
        deserialize_i32: i64 => visit_i64,
        deserialize_i64: i64 => visit_i64,
        deserialize_u8: u64 => visit_u64,
        deserialize_u16: u64 => visit_u64,
        deserialize_u32: u64 => visit_u64,
        deserialize_u64: u64 => visit_u64
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(Variant { name: self.0.to_owned(), content: None })
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Variant {
    name: String,
    content: Option<Value>,
}

impl<'de> de::EnumAccess<'de> for Variant {
    type Error = ConvertError;
    type Variant = Content;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Content)> {
        let Variant { name, content } = self;
        let variant = seed.deserialize(name.as_str().into_deserializer())?;
        Ok((variant, Content { name, content }))
    }
}

/// What stands behind the name of a variant.
struct Content {
    name: String,
    content: Option<Value>,
}

impl Content {
    fn with<T>(self, read: impl FnOnce(FromValue) -> Result<T>) -> Result<T> {
        let Content { name, content } = self;
        let content = content.map(FromValue).ok_or_else(|| {
            ConvertError::new(format_args!("variant {name} needs a value beside its name"))
        })?;
        read(content).map_err(|error| error.in_field(&name))
    }
}

impl<'de> de::VariantAccess<'de> for Content {
    type Error = ConvertError;

    fn unit_variant(self) -> Result<()> {
        match self.content {
            None | Some(Value::Null) => Ok(()),
            Some(_) => {
                let name = self.name;
                Err(ConvertError::new(format_args!("variant {name} has no value of its own")))
            }
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        self.with(|content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value> {
        self.with(|content| content.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.with(|content| content.deserialize_any(visitor))
    }
}
