//! A TCP connection to the hub as `embedded-io` has a line, over smoltcp.
//!
//! The addresses are those of a network that QEMU plays (`-nic user`), in which 10.0.2.2 is the machine
//! that QEMU runs on; a device would have them from DHCP and from its settings. The hub's port is the last
//! word of the emulator's arguments, 8080 without one.

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use replcore::driver::Framing;
use replcore::rng::Rng;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::iface::{PollResult, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::port::{ADDRESS, Lan9118};
use super::{Clock, Place};

/// What stands between the frames of the link and the bytes of the line.
pub const FRAMING: Framing = Framing::Stream;

const OWN_ADDRESS: IpCidr = IpCidr::new(IpAddress::v4(10, 0, 2, 15), 24);
const HUB_ADDRESS: IpAddress = IpAddress::v4(10, 0, 2, 2);
const HUB_PORT: u16 = 8080;
/// A connection, or an attempt at one, over which nothing has come for so long is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes under way each way.
const BUFFER_BYTES: usize = 1024;
/// Most Ethernet frames that are taken, and rounds of sending, before the application goes on.
const FRAMES_MAX: usize = 8;
/// The ports that are for the ends that dial.
const PORT_MIN: u16 = 0xc000;

static INCOMING: Place<[u8; BUFFER_BYTES]> = Place::empty();
static OUTGOING: Place<[u8; BUFFER_BYTES]> = Place::empty();
static SOCKETS: Place<[SocketStorage<'static>; 1]> = Place::empty();

/// The connection to the hub, one after the other.
pub struct Line {
    chip: Lan9118,
    network: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    clock: Clock,
    hub_port: u16,
    /// The own port, another for each connection, so that one that the hub still holds is not met.
    port: u16,
    state: LineState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineState {
    Closed,
    Opening,
    Open,
}

impl Line {
    /// The only one. `seed` differs from start to start.
    pub fn new(mut clock: Clock, seed: u64) -> Self {
        let mut chip = Lan9118::new();
        let mut config = Config::new(EthernetAddress(ADDRESS).into());
        config.random_seed = seed;
        let mut network = Interface::new(config, &mut chip, instant(&mut clock));
        network.update_ip_addrs(|own| own.push(OWN_ADDRESS).expect("room for one address"));
        // SAFETY: called once, as is said.
        let (incoming, outgoing, sockets) = unsafe {
            (
                INCOMING.put(|| [0; _]),
                OUTGOING.put(|| [0; _]),
                SOCKETS.put(|| [SocketStorage::EMPTY]),
            )
        };
        let mut sockets = SocketSet::new(&mut sockets[..]);
        let buffers = (SocketBuffer::new(&mut incoming[..]), SocketBuffer::new(&mut outgoing[..]));
        let mut socket = Socket::new(buffers.0, buffers.1);
        socket.set_timeout(Some(TIMEOUT));
        // Frames are written whole: waiting for more gains nothing.
        socket.set_nagle_enabled(false);
        let socket = sockets.add(socket);
        // Starts differ in a few bits of the seed only.
        let (hub_port, port) = (hub_port(), PORT_MIN | Rng::new(seed).next_u64() as u16);
        Self { chip, network, sockets, socket, clock, hub_port, port, state: LineState::Closed }
    }

    /// Begins to open a connection; [`Self::opened`] tells what became of it.
    pub fn open(&mut self) {
        // What is left of the last one ends with a reset.
        self.socket().abort();
        self.poll();
        self.port = PORT_MIN | self.port.wrapping_add(1);
        let hub = (HUB_ADDRESS, self.hub_port);
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        // Where it cannot begin it is closed, which `opened` sees.
        let _ = socket.connect(self.network.context(), hub, self.port);
        self.state = LineState::Opening;
    }

    /// Whether the connection that is being opened stands, once that is settled; then `None`.
    pub fn opened(&mut self) -> Option<bool> {
        if self.state != LineState::Opening {
            return None;
        }
        self.poll();
        let stands = match self.socket().state() {
            State::SynSent => return None,
            state => state == State::Established,
        };
        self.state = if stands { LineState::Open } else { LineState::Closed };
        Some(stands)
    }

    /// Closes the connection when what was written is out.
    pub fn close(&mut self) {
        self.socket().close();
        self.state = LineState::Closed;
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Does what the network has to do.
    fn poll(&mut self) {
        let now = instant(&mut self.clock);
        let Self { chip, network, sockets, .. } = self;
        network.poll_maintenance(now);
        for _ in 0..FRAMES_MAX {
            if network.poll_ingress_single(now, chip, sockets) == PollIngressSingleResult::None {
                break;
            }
        }
        for _ in 0..FRAMES_MAX {
            if network.poll_egress(now, chip, sockets) == PollResult::None {
                break;
            }
        }
    }
}

fn instant(clock: &mut Clock) -> Instant {
    Instant::from_micros(clock.now().as_micros() as i64)
}

/// What the emulator was told; semihosting knows.
fn hub_port() -> u16 {
    let mut memory = [core::mem::MaybeUninit::uninit(); 80];
    let words = semihosting::sys::arm_compat::sys_get_cmdline_uninit(&mut memory);
    let words = words.ok().and_then(|words| core::str::from_utf8(words).ok()).unwrap_or("");
    words.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(HUB_PORT)
}

impl ErrorType for Line {
    type Error = ErrorKind;
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        self.poll();
        let is_open = self.state == LineState::Open;
        let socket = self.socket();
        // The end of a connection is read, too.
        Ok(is_open && (socket.can_recv() || !socket.may_recv()))
    }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
        while !self.read_ready()? {
            if self.state != LineState::Open {
                return Err(ErrorKind::NotConnected);
            }
        }
        Ok(self.socket().recv_slice(bytes).unwrap_or(0))
    }
}

impl Write for Line {
    /// Waits for room at most as long as a connection may be silent.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        loop {
            match self.socket().send_slice(bytes) {
                Ok(0) => self.poll(),
                Ok(count) => return Ok(count),
                Err(_) => return Err(ErrorKind::NotConnected),
            }
        }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.poll();
        Ok(())
    }
}
