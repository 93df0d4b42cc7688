//! What a call answers.

use core::ffi::c_char;

use replcore_core::log::record::{EntryError, MessageError};
use replcore_core::member::MemberError;
use replcore_core::queue::rules::RuleError;

/// What a call answers: 0, or a negative number. After a negative one nothing has changed and no
/// out-parameter was written, unless the function says otherwise.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum replcore_status {
    /// Done.
    Ok = 0,
    /// A pointer is NULL that may not be.
    Null = -1,
    /// Memory or a buffer is too small.
    Short = -2,
    /// The structure says a size that this library does not know, with a tail that is not zero.
    StructSize = -3,
    /// The pointer is not a machine, or not of the kind that the function is for.
    Kind = -4,
    /// A number is not one of those that have a meaning there.
    Value = -5,
    /// A name is empty, longer than 63 bytes, or has a byte other than A-Z a-z 0-9 . _ - : /
    Name = -6,
    /// A text is longer than its limit or not UTF-8.
    Text = -7,
    /// The stored state is malformed, of a later version, or came after the first input.
    Restore = -8,
    /// More bytes are needed to tell.
    Incomplete = -9,
    /// A length is out of range.
    Length = -10,
    /// The checksum does not match.
    Checksum = -11,
    /// The form is not what it has to be, or the entry is not a record.
    Malformed = -12,
    /// The log ends here: nothing was written behind.
    End = -13,
    /// The log ends here with a batch that was not written whole.
    Torn = -14,
    /// The log was written by a later version of this library.
    Format = -15,
    /// There is no room for it now, or it does not fit the state the machine is in.
    Refused = -16,
    /// A table is full.
    Full = -17,
    /// This node does not lead: ask the leader.
    NotLeading = -18,
    /// The change before is not through yet: try again.
    Busy = -19,
    /// Made with another key, or changed under way.
    Forged = -20,
}

/// What `status` means, as one line of text; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_status_text(status: i32) -> *const c_char {
    let text = match status {
        0 => c"done",
        -1 => c"a pointer is NULL",
        -2 => c"memory or buffer too small",
        -3 => c"structure of a size this library does not know",
        -4 => c"not a machine of the kind this function is for",
        -5 => c"a number has no meaning there",
        -6 => c"not a name: 1 to 63 of A-Z a-z 0-9 . _ - : /",
        -7 => c"a text is too long or not UTF-8",
        -8 => c"stored state is malformed, too new or too late",
        -9 => c"more bytes are needed",
        -10 => c"a length is out of range",
        -11 => c"checksum does not match",
        -12 => c"malformed",
        -13 => c"end of the log",
        -14 => c"torn batch at the end of the log",
        -15 => c"log of a later version",
        -16 => c"refused: no room now, or not in this state",
        -17 => c"a table is full",
        -18 => c"this node does not lead: ask the leader",
        -19 => c"the change before is not through yet: try again",
        -20 => c"made with another key, or changed under way",
        _ => c"unknown status",
    };
    text.as_ptr()
}

impl From<MessageError> for replcore_status {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Class => Self::Value,
            MessageError::Short(_) => Self::Short,
            _ => Self::Text,
        }
    }
}

impl From<EntryError> for replcore_status {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Incomplete(_) => Self::Incomplete,
            EntryError::Length(_) => Self::Length,
            EntryError::Checksum => Self::Checksum,
            _ => Self::Malformed,
        }
    }
}

impl From<RuleError> for replcore_status {
    fn from(error: RuleError) -> Self {
        match error {
            RuleError::TooMany(_) | RuleError::TooManyTargets(_) => Self::Full,
            RuleError::Type => Self::Text,
            RuleError::Origin | RuleError::Target(_) => Self::Name,
            _ => Self::Value,
        }
    }
}

impl From<MemberError> for replcore_status {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::OwnName | MemberError::Duplicate => Self::Name,
            MemberError::Full => Self::Full,
            MemberError::MetadataTooLong => Self::Length,
            MemberError::NotLeading => Self::NotLeading,
            MemberError::Busy => Self::Busy,
            _ => Self::Refused,
        }
    }
}

/// The status of what a function did.
pub(crate) fn status(done: Result<(), replcore_status>) -> replcore_status {
    done.err().unwrap_or(replcore_status::Ok)
}
