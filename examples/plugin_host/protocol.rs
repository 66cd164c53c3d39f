//! What host and plugin speak: length-prefixed JSON over descriptor [`RPC`].
//!
//! A request is `{"id", "method", "params"}`, its answer `{"id", "result"}`.

use serde_json::Value;
use std::io::{self, Read, Write};

/// The descriptor that the plugin finds its host at.
pub const RPC: u32 = 3;
/// The longest frame that either side takes.
const FRAME: usize = 64 * 1024;

/// A frame: the length of the text, four bytes, little-endian; the text.
pub fn write_frame(to: &mut impl Write, value: &Value) -> io::Result<()> {
    let text = value.to_string();
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_le_bytes(), text.as_bytes()].concat())
}

/// The next frame; `None` when the other end has hung up.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Value>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut length = [0; 4];
    match from.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut length[1..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME {
        return Err(invalid(format!("a frame of {length} bytes"))); // nothing is allocated for it
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| invalid(format!("no JSON: {error}")))
}
