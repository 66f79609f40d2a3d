//! serde's serializer into values.

use lastword_core::limits::MAX_DEPTH;
use lastword_core::value::Value;
use serde::ser::{self, Serialize, Serializer};

use super::ConvertError;

type Result<T, E = ConvertError> = std::result::Result<T, E>;

/// The value of anything that serializes. `depth` counts the levels around it.
pub(super) fn to_value<T: Serialize + ?Sized>(value: &T, depth: usize) -> Result<Value> {
    // The record itself is one level, so its fields stand at depth 1.
    if depth > MAX_DEPTH {
        return Err(ConvertError::new(format_args!("nested deeper than {MAX_DEPTH} levels")));
    }
    value.serialize(ToValue { depth })
}

#[derive(Clone, Copy)]
struct ToValue {
    depth: usize,
}

/// Items or entries so far; with `variant` they are the content of an enum.
struct Items {
    depth: usize,
    variant: Option<&'static str>,
    items: Vec<Value>,
}

struct Entries {
    depth: usize,
    variant: Option<&'static str>,
    key: Option<String>,
    entries: Vec<(String, Value)>,
}

fn int<N: TryInto<i64> + Copy + std::fmt::Display>(number: N) -> Result<Value> {
    number.try_into().map(Value::Int).map_err(|_| {
        ConvertError::new(format_args!("{number} does not fit 64 bits signed; store it as text"))
    })
}

fn tagged(variant: Option<&str>, value: Value) -> Value {
    match variant {
        Some(name) => Value::Map(vec![(name.into(), value)]),
        None => value,
    }
}

impl ToValue {
    fn items(self, variant: Option<&'static str>) -> Items {
        let depth = self.depth + 1 + usize::from(variant.is_some());
        Items { depth, variant, items: Vec::new() }
    }

    fn entries(self, variant: Option<&'static str>) -> Entries {
        let depth = self.depth + 1 + usize::from(variant.is_some());
        Entries { depth, variant, key: None, entries: Vec::new() }
    }
}

macro_rules! whole_numbers {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, value: $type) -> Result<Value> {
            int(value)
        })*
    };
}

impl Serializer for ToValue {
    type Ok = Value;
    type Error = ConvertError;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    whole_numbers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_u128: u128
    }

    fn serialize_bool(self, value: bool) -> Result<Value> {
        Ok(Value::Bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Value> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<Value> {
        match value.is_finite() {
            true => Ok(Value::Float(value)),
            false => Err(ConvertError::new(format_args!("{value} is not a finite number"))),
        }
    }

    fn serialize_char(self, value: char) -> Result<Value> {
        Ok(Value::Text(value.into()))
    }

    fn serialize_str(self, value: &str) -> Result<Value> {
        Ok(Value::Text(value.into()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value> {
        Ok(Value::Bytes(value.into()))
    }

    fn serialize_none(self) -> Result<Value> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value> {
        Ok(Value::Text(variant.into()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Value> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value> {
        let value = to_value(value, self.depth + 1).map_err(|error| error.in_field(variant))?;
        Ok(tagged(Some(variant), value))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Items> {
        Ok(self.items(None))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Items> {
        Ok(self.items(None))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Items> {
        Ok(self.items(None))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Items> {
        Ok(self.items(Some(variant)))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Entries> {
        Ok(self.entries(None))
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Entries> {
        Ok(self.entries(None))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Entries> {
        Ok(self.entries(Some(variant)))
    }
}

impl Items {
    fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<()> {
        let at = self.items.len();
        let value = to_value(item, self.depth)
            .map_err(|error| error.in_item(at).in_variant(self.variant))?;
        self.items.push(value);
        Ok(())
    }

    fn finish(self) -> Value {
        tagged(self.variant, Value::List(self.items))
    }
}

impl Entries {
    fn push<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<()> {
        let value = to_value(value, self.depth)
            .map_err(|error| error.in_field(&name).in_variant(self.variant))?;
        self.entries.push((name, value));
        Ok(())
    }

    fn finish(self) -> Value {
        tagged(self.variant, Value::Map(self.entries))
    }
}

macro_rules! items_of {
    ($($trait:ident::$method:ident),*) => {
        $(impl ser::$trait for Items {
            type Ok = Value;
            type Error = ConvertError;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<()> {
                self.push(item)
            }

            fn end(self) -> Result<Value> {
                Ok(self.finish())
            }
        })*
    };
}

items_of!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! entries_of {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Entries {
            type Ok = Value;
            type Error = ConvertError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<()> {
                self.push(name.into(), value)
            }

            fn end(self) -> Result<Value> {
                Ok(self.finish())
            }
        })*
    };
}

entries_of!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Entries {
    type Ok = Value;
    type Error = ConvertError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        // A key is text, or what is written as text without loss.
        self.key = Some(match to_value(key, self.depth)? {
            Value::Text(text) => text,
            Value::Int(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            other => {
                let kind = super::kind_of(&other);
                return Err(ConvertError::new(format_args!("a map key is text, not {kind}")));
            }
        });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let name = self.key.take().expect("invariant: serde gives a key before its value");
        self.push(name, value)
    }

    fn end(self) -> Result<Value> {
        Ok(self.finish())
    }
}
