//! Decoding: what was written reads back, and nothing else is accepted, at bounded cost.

use core::fmt::Debug;

use lastword_core::codec::{Decode, DecodeError, Encode, Encoder, from_bytes, to_bytes};
use lastword_core::id::{DeviceId, Key, TableName, WorkspaceName};
use lastword_core::limits::{
    MAX_BATCH_OPS, MAX_DEPTH, MAX_FIELDS, MAX_FORMER_DEVICES, MAX_PAGE_ENTRIES, MAX_RECORD_BYTES,
    MAX_TEXT_BYTES, MAX_TOKEN_BYTES,
};
use lastword_core::op::{Action, Batch, Op};
use lastword_core::protocol::Message;
use lastword_core::row::Row;
use lastword_core::stamp::{Decision, Verdict};
use lastword_core::value::{Field, Record, Value, check_fields_untrusted};
use proptest::prelude::*;

use crate::{samples, strategies};

fn reads_back<T: Encode + Decode + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let bytes = to_bytes(value);
    let read = from_bytes::<T>(&bytes);
    prop_assert_eq!(read.as_ref(), Ok(value));
    let mut longer = bytes.clone();
    longer.push(0);
    let extra = DecodeError::Trailing { offset: bytes.len(), extra: 1 };
    prop_assert_eq!(from_bytes::<T>(&longer), Err(extra));
    Ok(())
}

/// What decodes is exactly what an encoder writes: one value has one form.
fn only_form<T: Encode + Decode>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = from_bytes::<T>(bytes) {
        prop_assert_eq!(to_bytes(&value), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::cases())]

    /// I30, design section 7: every type reads back as written, and a byte more is an error.
    #[test]
    fn everything_reads_back(
        value in strategies::value(),
        record in strategies::record(),
        op in strategies::op(),
        batch in strategies::batch(),
        row in strategies::row(),
        verdict in strategies::verdict(),
        message in strategies::message(),
    ) {
        reads_back(&value)?;
        reads_back(&record)?;
        reads_back(&op)?;
        reads_back(&batch)?;
        reads_back(&row)?;
        reads_back(&verdict)?;
        reads_back(&message)?;
    }

    /// R11.1: arbitrary bytes are an error or a message in its only form, and never a panic.
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        only_form::<Value>(&bytes)?;
        only_form::<Row>(&bytes)?;
        only_form::<Batch>(&bytes)?;
        for tag in 0..=14 {
            if let Some(first) = bytes.first_mut() {
                *first = tag;
            }
            only_form::<Message>(&bytes)?;
        }
    }

    /// R11.1: a message that was changed on its way is an error or another message in its only
    /// form.
    #[test]
    fn changed_messages_never_panic(
        message in strategies::message(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        splice in any::<bool>(),
    ) {
        let mut bytes = to_bytes(&message);
        let at = at.index(bytes.len());
        match splice {
            true => bytes.insert(at, with),
            false => bytes[at] = with,
        }
        only_form::<Message>(&bytes)?;
    }

    /// An encoded row whose flags say less or more than they must has another form already.
    #[test]
    fn a_row_has_one_form(row in strategies::row(), flags in 0..=255_u8) {
        let mut bytes = to_bytes(&row);
        bytes[0] = flags;
        only_form::<Row>(&bytes)?;
    }

    /// The size of a record that limits speak of is that of its bytes.
    #[test]
    fn a_record_knows_its_size(record in strategies::record()) {
        prop_assert_eq!(record.size_bytes(), to_bytes(&record).len());
    }
}

/// I7: bytes that end early are an error wherever they end, for every shape there is.
#[test]
fn every_truncation_is_an_error() {
    for sample in samples::all().iter().filter(|sample| sample.name.starts_with("message.")) {
        for end in 0..sample.product.len() {
            let result = from_bytes::<Message>(&sample.product[..end]);
            assert!(result.is_err(), "{} cut at {end}", sample.name);
        }
    }
    for (name, row, _) in samples::all_rows() {
        let bytes = to_bytes(&row);
        for end in 0..bytes.len() {
            assert!(from_bytes::<Row>(&bytes[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

/// Design section 7: wincode takes an integer in a longer form than needed, the layout does not.
#[test]
fn only_the_shortest_form_of_an_integer_is_read() {
    let longer: [&[u8]; 7] = [
        &[251, 250, 0],
        &[251, 0, 0],
        &[252, 0xff, 0xff, 0, 0],
        &[252, 7, 0, 0, 0],
        &[253, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[253, 250, 0, 0, 0, 0, 0, 0, 0],
        &[253, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in longer {
        assert_eq!(from_bytes::<u64>(bytes), Err(DecodeError::Integer { offset: 0 }), "{bytes:?}");
    }
    for marker in [254, 255] {
        let bytes = [&[marker][..], &[0; 16]].concat();
        assert_eq!(from_bytes::<u64>(&bytes), Err(DecodeError::Integer { offset: 0 }));
    }
    assert_eq!(from_bytes::<u64>(&[251, 251, 0]), Ok(251));
    assert_eq!(from_bytes::<u64>(&[252, 0, 0, 1, 0]), Ok(65_536));
    assert_eq!(from_bytes::<u64>(&[253, 0, 0, 0, 0, 1, 0, 0, 0]), Ok(1 << 32));
}

/// What a session says of a field from outside is what decoding its value says.
fn checked_as_decoded(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let field = Field { name: "f".into(), value: bytes };
    let checked = check_fields_untrusted(std::slice::from_ref(&field));
    prop_assert_eq!(checked, field.decode_value().map(drop));
    Ok(())
}

proptest! {
    #![proptest_config(crate::cases())]

    /// I30, I41: a field from outside is checked without being decoded; that accepts what decodes,
    /// and nothing else, with the same error.
    #[test]
    fn a_field_is_checked_as_it_decodes(
        value in strategies::value(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        noise in proptest::collection::vec(0..12_u8, 0..24),
    ) {
        let mut bytes = to_bytes(&value);
        checked_as_decoded(bytes.clone())?;
        checked_as_decoded(bytes[..at.index(bytes.len())].to_vec())?;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        checked_as_decoded(bytes)?;
        checked_as_decoded(noise)?;
    }
}

/// I30: a name that occurs twice is found wherever the two stand.
#[test]
fn a_name_that_occurs_twice_is_found_among_many() {
    let field = |number: usize| Field { name: format!("f{number}"), value: vec![0] };
    let fields: Vec<Field> = (0..100).map(field).collect();
    assert_eq!(check_fields_untrusted(&fields), Ok(()));
    for twice in [0, 15, 16, 17, 99] {
        let fields = [&fields[..], &[field(twice)]].concat();
        assert_eq!(check_fields_untrusted(&fields), invalid("repeated field name", 0));
    }
}

fn written(fill: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut out = Encoder::default();
    fill(&mut out);
    out.into_bytes()
}

fn nested(depth: usize) -> Vec<u8> {
    let lists = [6, 1].repeat(depth - 1);
    [lists, vec![0]].concat()
}

fn invalid<T>(what: &'static str, offset: usize) -> Result<T, DecodeError> {
    Err(DecodeError::Invalid { what, offset })
}

/// Design section 7: a number is finite, a name occurs once, depth is at most 32, text is UTF-8
/// and a tag has a meaning; each other case is a typed error with its place.
#[test]
fn values_that_mean_nothing_are_typed_errors() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let bytes = [&[3][..], &number.to_le_bytes()].concat();
        assert_eq!(from_bytes::<Value>(&bytes), invalid("number", 0));
    }
    assert_eq!(from_bytes::<Value>(&[7, 2, 1, b'a', 0, 1, b'a', 0]), invalid("repeated name", 1));
    assert_eq!(from_bytes::<Value>(&[1, 2]), invalid("flag", 1));
    assert_eq!(from_bytes::<Value>(&[8]), invalid("value tag", 0));
    assert_eq!(from_bytes::<Value>(&[4, 2, 0xc3, 0x28]), invalid("text", 1));
    assert!(from_bytes::<Value>(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(from_bytes::<Value>(&nested(MAX_DEPTH + 1)), invalid("nesting depth", 64));
    // A derived decoder overflowed the stack here.
    assert!(from_bytes::<Value>(&nested(200_000)).is_err());
    assert_eq!(from_bytes::<TableName>(&[3, b'a', b'/', b'b']), invalid("table name", 0));
    assert_eq!(from_bytes::<WorkspaceName>(&[0]), invalid("workspace name", 0));
    assert_eq!(from_bytes::<Key>(&[0]), invalid("key", 0));
    assert_eq!(from_bytes::<Action>(&[5]), invalid("op tag", 0));
    assert_eq!(from_bytes::<Action>(&[4, 2]), invalid("tombstone tag", 1));
    assert_eq!(from_bytes::<Verdict>(&[2]), invalid("verdict tag", 0));
    assert_eq!(from_bytes::<Verdict>(&[1, 0, 7]), invalid("superseded reason", 2));
    assert_eq!(from_bytes::<Decision>(&[2]), invalid("decision tag", 0));
    assert_eq!(from_bytes::<Decision>(&[1, 6]), invalid("refusal code", 1));
    assert_eq!(from_bytes::<Row>(&[32]), invalid("row flags", 0));
    assert_eq!(from_bytes::<Message>(&[17]), invalid("message tag", 0));
    assert_eq!(from_bytes::<Message>(&[12, 4]), invalid("notice tag", 1));
}

/// I41: a length beyond its limit is an error before anything is read or asked for.
#[test]
fn a_length_above_its_limit_is_an_error() {
    fn limited<T: Decode + Debug>(what: &str, limit: usize, prefix: &[u8]) {
        for len in [limit as u64 + 1, u64::from(u32::MAX), u64::MAX] {
            let bytes = written(|out| {
                out.raw(prefix);
                out.u64(len);
            });
            match from_bytes::<T>(&bytes) {
                Err(DecodeError::TooLong { what: of, len: found, limit: most, offset }) => {
                    assert_eq!((of, found, most), (what, len, limit));
                    assert_eq!(offset, prefix.len());
                }
                other => panic!("{what} of {len}: {other:?}"),
            }
        }
    }
    limited::<Value>("text", MAX_RECORD_BYTES, &[4]);
    limited::<Value>("bytes", MAX_RECORD_BYTES, &[5]);
    limited::<Value>("list", MAX_RECORD_BYTES, &[6]);
    limited::<Value>("map", MAX_FIELDS, &[7]);
    limited::<Record>("fields", MAX_FIELDS, &[]);
    limited::<Field>("field", MAX_RECORD_BYTES, &[1, b'a']);
    limited::<Key>("key", 1024, &[]);
    limited::<TableName>("table name", 64, &[]);
    limited::<Action>("set fields", MAX_FIELDS, &[2]);
    limited::<Action>("removed fields", MAX_FIELDS, &[2, 0]);
    limited::<Verdict>("dropped fields", 2 * MAX_FIELDS, &[0]);
    limited::<Message>("token", MAX_TOKEN_BYTES, &[11]);
    limited::<Message>("message", MAX_TEXT_BYTES, &[13, 0]);
    limited::<Message>("entries", MAX_PAGE_ENTRIES, &[8, 1, 0, 0, 0]);
    let until_former = [&[0; 16][..], &[1], &[0; 16], &[0, 0]].concat();
    limited::<Batch>("former devices", MAX_FORMER_DEVICES, &until_former);
    let until_ops = [&until_former[..], &[0]].concat();
    limited::<Batch>("ops", MAX_BATCH_OPS, &until_ops);
}

/// The story: a patch of 4,096 set and 4,096 removed names could lose more than 4,096 of them
/// under `server_wins`; the verdict was written, and the log could not be read again.
#[test]
fn a_verdict_can_drop_every_field_of_a_patch() {
    let dropped: Vec<String> = (0..2 * MAX_FIELDS).map(|n| format!("f{n}")).collect();
    let verdict = Verdict::Applied { dropped };
    assert_eq!(from_bytes::<Verdict>(&to_bytes(&verdict)), Ok(verdict));
}

/// Ids are 32 hexadecimal digits and nothing else; `+f` was once taken for a byte.
#[test]
fn an_id_is_read_from_its_digits_only() {
    let id = DeviceId([0xab; 16]);
    assert_eq!(DeviceId::parse(&id.to_string()), Some(id));
    for text in ["", "ab", &"+f".repeat(16), &"zz".repeat(16), &"ä".repeat(16), &"a".repeat(33)] {
        assert_eq!(DeviceId::parse(text), None, "{text:?}");
    }
}

/// R11.1: what a batch from outside must not hold is told with its record.
#[test]
fn a_batch_from_outside_is_checked() {
    let [good] = &samples::batch().ops[2..3] else { panic!("the sample has ops") };
    let with =
        |action: Action| Batch { ops: vec![Op { action, ..good.clone() }], ..samples::batch() };
    let field = |name: &str, value: &[u8]| Field { name: name.into(), value: value.into() };
    let bad = [
        Action::Put { record: Record::from_fields(vec![field("a", &[99])]) },
        Action::Put { record: Record::from_fields(vec![field("a", &[0, 0])]) },
        Action::Put { record: Record::from_fields(vec![field("a", &[0]), field("a", &[0])]) },
        Action::Put {
            record: Record::from_fields(
                ["a", "b"]
                    .map(|name| field(name, &to_bytes(&Value::Bytes(vec![0; 200_000]))))
                    .into(),
            ),
        },
        Action::Patch { set: vec![field("a", &[0]), field("a", &[0])], remove: vec![] },
        Action::Patch { set: vec![field("a", &[0])], remove: vec!["a".into()] },
    ];
    for action in bad {
        let error = with(action.clone()).check_untrusted();
        assert!(error.is_err(), "{action:?}");
        assert!(error.unwrap_err().to_string().contains("messages/m1"));
    }
    assert!(with(Action::Delete).check_untrusted().is_ok());
    let twice = Batch { ops: vec![good.clone(), good.clone()], ..samples::batch() };
    assert!(twice.check_untrusted().is_err());
    assert!(Batch { ops: vec![], ..samples::batch() }.check_untrusted().is_err());
}
