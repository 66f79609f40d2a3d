//! The words of Lastword as types: values, ops, rules, encoding and the sync sessions.
//!
//! This crate has no I/O, clock, thread or randomness: ids, time and seeds come in as arguments.
//! It is `no_std`, so the compiler proves it. The same code runs on a device, on the server, in a
//! browser and in a simulator.
//!
//! Modules from lowest to highest; each uses only those above it in this list:
//!
//! | module | what it holds |
//! |---|---|
//! | `plant` | bugs on purpose, for the test that proves that tests find them |
//! | [`limits`] | every limit of the product |
//! | [`codec`] | the frozen byte layout |
//! | [`id`] | names, keys, device and batch ids |
//! | [`hash`] | what files and their chunks are called |
//! | [`manifest`] | which chunks a file consists of |
//! | [`hlc`] | the hybrid logical clock |
//! | [`value`] | values, fields, records |
//! | `any_value` | values through serde |
//! | [`json`] | values as JSON text |
//! | [`op`] | ops and batches |
//! | [`stamp`] | marks, verdicts, decisions |
//! | [`row`] | the state of one record, digests |
//! | [`rules`] | the rules of sync |
//! | [`schema`] | the tables of a workspace and their rules |
//! | [`protocol`] | messages and the two sans-IO sessions |
//!
//! ```
//! use lastword_core::json;
//!
//! let record = json::parse_record(r#"{"text": "hi", "likes": 3}"#)?;
//! assert_eq!(json::record_to_string(&record)?, r#"{"text":"hi","likes":3}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]

extern crate alloc;

#[doc(hidden)]
pub mod plant;
pub mod limits;
pub mod codec;
pub mod id;
pub mod hash;
pub mod manifest;
pub mod hlc;
pub mod value;
mod any_value;
pub mod json;
pub mod op;
pub mod stamp;
pub mod row;
pub mod rules;
pub mod schema;
pub mod protocol;
