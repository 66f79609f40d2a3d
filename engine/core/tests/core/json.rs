//! JSON text: nothing is lost, and what JSON cannot say without loss is an error with its place.

use lastword_core::codec::to_bytes;
use lastword_core::json::{self, JsonError, parse_record, parse_value, value_to_string};
use lastword_core::limits::{MAX_DEPTH, MAX_FIELD_NAME_BYTES, MAX_FIELDS, MAX_RECORD_BYTES};
use lastword_core::value::{Record, Value, ValueError};
use proptest::prelude::*;

use crate::strategies;

proptest! {
    #![proptest_config(crate::cases())]

    /// Design section 7: value to text to value is the identity, in bits too.
    #[test]
    fn values_survive_text(value in strategies::value()) {
        let text = value_to_string(&value);
        let back = parse_value(&text).unwrap();
        prop_assert_eq!(to_bytes(&back), to_bytes(&value), "{}", text);
    }

    /// The same for records, whose own object is never taken for an escape.
    #[test]
    fn records_survive_text(record in strategies::record()) {
        let text = json::record_to_string(&record).unwrap();
        prop_assert_eq!(parse_record(&text).unwrap(), record, "{}", text);
    }

    /// R11.1: arbitrary text is an error or a value that can be stored.
    #[test]
    fn arbitrary_text_never_panics(text in r#"[\[\]{}":,$a0-9.eE\\u\- \n]{0,40}"#) {
        if let Ok(value) = parse_value(&text) {
            prop_assert_eq!(value.check("v"), Ok(()), "{}", text);
        }
    }
}

#[track_caller]
fn place(text: &str) -> (usize, usize, String, String) {
    match parse_record(text) {
        Err(JsonError::Text { line, column, path, reason }) => (line, column, path, reason),
        other => panic!("{text} gave {other:?}"),
    }
}

/// Design section 7: an integer beyond 64 bits signed is an error that names line, column and
/// path. The story: integers beyond 64 bits unsigned became floats without a word, and the error
/// for those in between had no path.
#[test]
fn an_integer_beyond_64_bits_signed_is_an_error_with_its_place() {
    let largest = format!(r#"{{"a":{},"b":{}}}"#, i64::MAX, i64::MIN);
    let record = parse_record(&largest).unwrap();
    assert_eq!(record.get("a"), Some(Value::Int(i64::MAX)));
    assert_eq!(record.get("b"), Some(Value::Int(i64::MIN)));
    for too_long in ["9223372036854775808", "-9223372036854775809", &"9".repeat(40)] {
        let text = format!(r#"{{"a":1,"b":{{"c":[0,{too_long}]}}}}"#);
        let (line, column, path, reason) = place(&text);
        assert_eq!((line, column, path.as_str()), (1, 20, "b.c[1]"));
        assert!(reason.contains(too_long) && reason.contains("64 bits"), "{reason}");
    }
    let (line, column, path, _) = place("{\n \"a\": 1,\n \"b\": 99999999999999999999}");
    assert_eq!((line, column, path.as_str()), (3, 7, "b"));
    // In text and in floats many digits are fine.
    assert!(parse_record(r#"{"a":"99999999999999999999","b":99999999999999999999.0}"#).is_ok());
    assert!(parse_record(r#"{"a\"99999999999999999999":1}"#).is_ok());
    // What is wrong before it comes first.
    let (_, _, path, reason) = place(r#"{"a":1,"a":99999999999999999999}"#);
    assert_eq!(path, "a");
    assert!(reason.contains("twice"), "{reason}");
}

/// Design section 7: what is not a finite number, a lone surrogate, a repeated name and text that
/// goes on are errors that name their place.
#[test]
fn what_cannot_be_stored_without_loss_is_an_error_with_its_place() {
    let cases = [
        (r#"{"a":NaN}"#, "a", "expected"),
        (r#"{"a":[1,Infinity]}"#, "a[1]", "expected"),
        (r#"{"a":1e999}"#, "a", "range"),
        (r#"{"a":{"b":"\ud800"}}"#, "a.b", "hex escape"),
        (r#"{"a":["\udc00"]}"#, "a[0]", "surrogate"),
        (r#"{"a":{"b":1,"c":2,"b":3}}"#, "a.b", "twice"),
        (r#"{"a":1} x"#, "", "trailing"),
        (r#"{"a":{"$bytes":"?"}}"#, "a", "base64"),
        (r#"{"a":{"$bytes":1}}"#, "a", "base64"),
        (r#"{"a":[{"$ref":"x"}]}"#, "a[0]", "$$ref"),
        (r#"{"a":{"$":"x"}}"#, "a", "$$"),
    ];
    for (text, path, reason) in cases {
        let (line, column, found, why) = place(text);
        assert_eq!((line, found.as_str()), (1, path), "{text}: {why}");
        assert!(why.contains(reason), "{text}: {why}");
        assert!((1..=text.len()).contains(&column), "{text}: column {column}");
    }
    let error = parse_record("{\"a\":\n[1,\n{\"b\":nul}]}").unwrap_err().to_string();
    assert!(error.starts_with("line 3, column ") && error.contains("field a[1].b"), "{error}");
    let error = parse_record(r#"{"a":nul}"#).unwrap_err().to_string();
    assert!(error.starts_with("column ") && error.contains("field a"), "{error}");
    for text in ["1", "[]", r#""a""#, "null"] {
        assert_eq!(parse_record(text), Err(JsonError::NotAnObject), "{text}");
    }
}

/// Design section 7: `1` and `1.0` are different values and `-0.0` keeps its sign.
#[test]
fn numbers_keep_their_kind_and_sign() {
    let cases = [
        ("1", Value::Int(1)),
        ("1.0", Value::Float(1.0)),
        ("-0.0", Value::Float(-0.0)),
        ("-0", Value::Float(-0.0)),
        ("0", Value::Int(0)),
        ("1e2", Value::Float(100.0)),
        ("0.1", Value::Float(0.1)),
        ("5e-324", Value::Float(f64::from_bits(1))),
        ("1.7976931348623157e308", Value::Float(f64::MAX)),
    ];
    for (text, value) in cases {
        assert_eq!(to_bytes(&parse_value(text).unwrap()), to_bytes(&value), "{text}");
    }
    assert_eq!(value_to_string(&Value::Float(-0.0)), "-0.0");
    assert_eq!(value_to_string(&Value::Float(1.0)), "1.0");
}

/// Design section 7: bytes are `$bytes`, any other map of one `$` name is escaped. The story: only
/// `$bytes` itself was escaped, so `{"$ref":1}` written today would have changed its meaning the
/// day `$ref` got one; and bytes that stood alone came back as a map.
#[test]
fn dollar_names_are_escaped_where_they_stand_alone() {
    let map = |name: &str| Value::Map(vec![(name.into(), Value::Int(1))]);
    let cases = [
        (map("$ref"), r#"{"$$ref":1}"#),
        (map("$bytes"), r#"{"$$bytes":1}"#),
        (map("$$bytes"), r#"{"$$$bytes":1}"#),
        (map("$"), r#"{"$$":1}"#),
        (map("ref"), r#"{"ref":1}"#),
        (Value::Bytes(vec![1, 2, 3]), r#"{"$bytes":"AQID"}"#),
        (Value::Bytes(vec![]), r#"{"$bytes":""}"#),
        (
            Value::Map(vec![("$a".into(), Value::Null), ("$bytes".into(), Value::Null)]),
            r#"{"$a":null,"$bytes":null}"#,
        ),
    ];
    for (value, text) in cases {
        assert_eq!(value_to_string(&value), text);
        assert_eq!(parse_value(text), Ok(value.clone()), "{text}");
        let record = Record::new(&[("f".into(), value)]).unwrap();
        let line = json::record_to_string(&record).unwrap();
        assert_eq!(line, format!(r#"{{"f":{text}}}"#));
        assert_eq!(parse_record(&line), Ok(record));
    }
    let record = parse_record(r#"{"$bytes":1}"#).unwrap();
    assert_eq!(record.get("$bytes"), Some(Value::Int(1)));
}

/// Design section 7: a field may be nested 32 deep, and no deeper, whichever way it comes in. The
/// story: a value that stood alone was read 33 deep, and could then not be stored.
#[test]
fn depth_is_limited_the_same_everywhere() {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    for (depth, fits) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100_000, false)] {
        assert_eq!(parse_value(&deep(depth)).is_ok(), fits, "{depth}");
        assert_eq!(parse_record(&format!(r#"{{"a":{}}}"#, deep(depth))).is_ok(), fits, "{depth}");
    }
    let (_, _, path, reason) = place(&format!(r#"{{"a":{}}}"#, deep(MAX_DEPTH + 1)));
    assert_eq!(path, format!("a{}", "[0]".repeat(MAX_DEPTH)));
    assert!(reason.contains("32 levels"), "{reason}");
    let mut value = Value::Null;
    (1..MAX_DEPTH).for_each(|_| value = Value::List(vec![value.clone()]));
    assert_eq!(value.check("a"), Ok(()));
    let deeper = Value::List(vec![value]);
    assert!(matches!(deeper.check("a"), Err(ValueError::TooDeep { limit: MAX_DEPTH, .. })));
}

/// Design section 5: a record of 256 KiB fits, one byte more does not; the same for names and
/// counts.
#[test]
fn records_end_at_their_limits() {
    // 1 field: count 1, name 1 + 1, value length 5, tag 1, text length 5.
    let fits = MAX_RECORD_BYTES - 14;
    for (len, ok) in [(fits, true), (fits + 1, false)] {
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(len));
        match parse_record(&text) {
            Ok(record) => {
                assert!(ok);
                assert_eq!(to_bytes(&record).len(), MAX_RECORD_BYTES);
            }
            Err(error) => {
                assert!(!ok);
                let (size_bytes, limit) = (MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES);
                assert_eq!(error, JsonError::Value(ValueError::TooLarge { size_bytes, limit }));
            }
        }
    }
    for (len, ok) in [(MAX_FIELD_NAME_BYTES, true), (MAX_FIELD_NAME_BYTES + 1, false)] {
        let name = "n".repeat(len);
        assert_eq!(parse_record(&format!(r#"{{"{name}":1}}"#)).is_ok(), ok, "{len}");
        assert_eq!(parse_record(&format!(r#"{{"a":{{"{name}":1}}}}"#)).is_ok(), ok, "{len}");
    }
    for (len, ok) in [(MAX_FIELDS, true), (MAX_FIELDS + 1, false)] {
        let fields: Vec<String> = (0..len).map(|n| format!(r#""f{n}":1"#)).collect();
        let object = format!("{{{}}}", fields.join(","));
        assert_eq!(parse_record(&object).is_ok(), ok, "{len}");
        assert_eq!(parse_record(&format!(r#"{{"a":{object}}}"#)).is_ok(), ok, "{len}");
    }
    let twice = [("a".into(), Value::Null), ("a".into(), Value::Null)];
    assert!(matches!(Record::new(&twice), Err(ValueError::Duplicate { .. })));
    let nan = [("a".into(), Value::List(vec![Value::Float(f64::NAN)]))];
    assert_eq!(Record::new(&nan), Err(ValueError::NotFinite { path: "a[0]".into() }));
}
