//! Byte layers under a link, without input and output: what makes frames out of a medium that
//! only knows bytes, and packets that nobody else can read or make out of frames. The machines do not
//! know of them; a driver puts them between the medium and
//! [`Input::Recv`](crate::contract::Input::Recv).

pub mod cobs;
#[cfg(feature = "noise")]
pub mod noise;
