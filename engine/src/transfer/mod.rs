//! Files on their way: the two sides of the conversation that carries one, on whatever brings
//! messages. The receiver asks for what it lacks, so both sides of a transfer are the same in
//! either direction; what differs is who may.

mod pace;
mod receiving;
mod device;
mod by_url;
mod service;

pub use device::{Ended, Ending, Got, Pieces, Progress, Wire, download, upload};
pub use service::{FileService, ServiceError};
