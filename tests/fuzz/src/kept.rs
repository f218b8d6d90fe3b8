//! What is read back from a store that others may share, or from a peer that kept it.

use bytes::Bytes;
use syndicate::client::follow::Position;
use syndicate::log::commit::{
    Batch, Commit, Floor, LogRecord, Payload, PrivateRecord, Records, Segment,
};
use syndicate::proof::map::Ascending;
use syndicate::proof::replay::Carrying;

/// The first byte: which object.
pub fn kept(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let shared = Bytes::copy_from_slice(bytes);
    let written = match which % 10 {
        0 => LogRecord::decode(bytes).ok().map(|it| it.encode()),
        1 => Commit::decode(bytes).ok().map(|it| it.encode()),
        2 => Batch::decode(&shared).ok().map(|it| it.encode()),
        3 => Payload::decode(&shared).ok().map(|it| it.encode()),
        4 => PrivateRecord::decode(&shared).ok().map(|it| it.encode()),
        5 => Segment::decode(&shared).ok().map(|it| it.encode()),
        6 => Records::decode(&shared).ok().map(|it| it.encode()),
        7 => Floor::decode(bytes).ok().map(|it| it.encode()),
        8 => {
            // Full tiles may stand for partial ones.
            if let Ok(position) = Position::decode(bytes) {
                assert_eq!(Position::decode(&position.encode()).as_ref(), Ok(&position));
                assert_eq!(position.edge().frontier().root(), position.root());
            }
            None
        }
        _ => {
            if let Some(map) = Ascending::decode(bytes) {
                let _ = map.root();
            }
            Carrying::decode(bytes).map(|carrying| {
                let _ = (carrying.is_complete(), carrying.last());
                carrying.encode().into()
            })
        }
    };
    assert!(written.is_none_or(|written| written == bytes));
}
