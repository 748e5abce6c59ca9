//! A TCP proxy in front of each broker. It can cut connections, and make them slow, silent, or silent in one direction.
//!
//! It passes whole requests and responses of Kafka's protocol (a length of 4 bytes, then so many bytes), so it can hold
//! back one kind of request. It delivers a held request later, even if the client has given up on it, as a network does.

use std::collections::HashMap;
use std::io::{Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::lab::sandbox::BackDoor;

/// The present state of the network. It can change while connections are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    pub delay: Duration,
    /// Requests do not arrive.
    pub requests_held: bool,
    /// Responses do not arrive.
    pub responses_held: bool,
    /// The next request with this API key does not arrive. All others do.
    pub hold_one: Option<i16>,
}

/// A listener on this machine that passes connections on to a broker, until it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    weather: Weather,
    /// The client's side of each connection, by the connection's number.
    connections: HashMap<u64, TcpStream>,
    connected: u64,
    /// How many requests are held back by `hold_one`.
    held: usize,
    /// It rises when held requests may go on.
    released: u64,
    ended: bool,
}

/// The API key of EndTxn, which commits or aborts a transaction.
pub const END_TXN: i16 = 26;

impl Proxy {
    /// Listens on the port that `door` advertises to clients.
    ///
    /// # Errors
    /// If the port is taken, or the broker's address is not valid.
    pub fn start(door: &BackDoor) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", door.advertised))?;
        let address = listener.local_addr()?;
        let broker = door.address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.lock().ended {
                    return;
                }
                // If the broker is down, drop the client's connection, as the broker would refuse it.
                if let Ok(client) = client {
                    let _ = accepting.connect(client, broker);
                }
            }
        });
        Ok(Proxy { shared, address })
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes the network. Requests and responses go on if they are no longer held.
    pub fn set(&self, weather: Weather) {
        self.shared.lock().weather = weather;
        self.shared.changed.notify_all();
    }

    /// Ends all connections on the client's side. Held requests will still reach the broker.
    pub fn cut(&self) {
        for (_, client) in self.shared.lock().connections.drain() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// How many requests are held back by `hold_one`.
    pub fn held(&self) -> usize {
        self.shared.lock().held
    }

    /// Lets the requests that `hold_one` held back go on.
    pub fn release(&self) {
        self.shared.lock().released += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        self.cut();
        // A connection wakes the thread that accepts, so that it can end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream, broker: SocketAddr) -> Result<()> {
        let broker = TcpStream::connect_timeout(&broker, Duration::from_secs(2))?;
        for stream in [&client, &broker] {
            stream.set_nodelay(true)?;
        }
        let (from_client, from_broker) = (client.try_clone()?, broker.try_clone()?);
        let number = {
            let mut state = self.lock();
            state.connected += 1;
            let number = state.connected;
            state.connections.insert(number, client.try_clone()?);
            number
        };
        let (requests, responses) = (self.clone(), self.clone());
        std::thread::spawn(move || requests.pass(from_client, broker, Shared::let_request_pass));
        std::thread::spawn(move || {
            responses.pass(from_broker, client, Shared::let_response_pass);
            responses.lock().connections.remove(&number);
        });
        Ok(())
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, wait: fn(&Shared, &[u8])) {
        while let Ok(frame) = read_frame(&mut from) {
            wait(self, &frame);
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Read);
        let _ = to.shutdown(Shutdown::Write);
    }

    fn let_request_pass(&self, frame: &[u8]) {
        let state = self.while_slow(|state| state.weather.requests_held);
        let api_key = frame.get(4..6).map(|key| i16::from_be_bytes([key[0], key[1]]));
        if api_key.is_some() && state.weather.hold_one == api_key {
            self.hold_back(state);
        }
    }

    fn hold_back(&self, mut state: MutexGuard<'_, State>) {
        let released = state.released;
        state.weather.hold_one = None;
        state.held += 1;
        let mut state = self
            .changed
            .wait_while(state, |state| state.released == released && !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.held -= 1;
    }

    fn let_response_pass(&self, _frame: &[u8]) {
        drop(self.while_slow(|state| state.weather.responses_held));
    }

    fn while_slow(&self, is_held: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let delay = self.lock().weather.delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        self.changed
            .wait_while(self.lock(), |state| is_held(state) && !state.ended)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a request or a response, with the length in front of it.
fn read_frame(from: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length) as usize;
    let mut frame = vec![0; 4 + size];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that echoes, a proxy in front of it, and a client.
    fn echo() -> (Proxy, TcpStream) {
        let broker = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = broker.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            for stream in broker.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut back = stream.try_clone().expect("a handle");
                    let _ = std::io::copy(&mut &stream, &mut back);
                });
            }
        });
        let proxy = Proxy::start(&BackDoor { address, advertised: 0 }).expect("a proxy");
        let client = TcpStream::connect(proxy.address()).expect("connects");
        (proxy, client)
    }

    fn request(api_key: i16) -> Vec<u8> {
        [&4_u32.to_be_bytes()[..], &api_key.to_be_bytes(), &[7, 7]].concat()
    }

    fn exchange(client: &mut TcpStream, api_key: i16, patience: Duration) -> bool {
        client.write_all(&request(api_key)).expect("sent");
        client.set_read_timeout(Some(patience)).expect("set");
        read_frame(client).is_ok_and(|frame| frame == request(api_key))
    }

    const SOON: Duration = Duration::from_secs(10);
    const NEVER: Duration = Duration::from_millis(50);

    #[test]
    fn passes_requests_and_responses() {
        let (_proxy, mut client) = echo();
        assert!(exchange(&mut client, 1, SOON));
        assert!(exchange(&mut client, END_TXN, SOON));
    }

    #[test]
    fn what_is_held_arrives_later() {
        for held in [
            Weather { requests_held: true, ..Weather::default() },
            Weather { responses_held: true, ..Weather::default() },
        ] {
            let (proxy, mut client) = echo();
            proxy.set(held);
            assert!(!exchange(&mut client, 1, NEVER));
            proxy.set(Weather::default());
            client.set_read_timeout(Some(SOON)).expect("set");
            assert_eq!(read_frame(&mut client).expect("arrives"), request(1));
        }
    }

    #[test]
    fn one_kind_of_request_is_held_once() {
        let (proxy, mut client) = echo();
        proxy.set(Weather { hold_one: Some(END_TXN), ..Weather::default() });
        assert!(exchange(&mut client, 1, SOON));
        assert!(!exchange(&mut client, END_TXN, NEVER));
        assert_eq!(proxy.held(), 1);
        let mut other = TcpStream::connect(proxy.address()).expect("connects");
        assert!(exchange(&mut other, END_TXN, SOON), "the next one passes");
        proxy.release();
        client.set_read_timeout(Some(SOON)).expect("set");
        assert_eq!(read_frame(&mut client).expect("arrives"), request(END_TXN));
    }

    #[test]
    fn a_cut_ends_connections_and_takes_new_ones() {
        let (proxy, mut client) = echo();
        assert!(exchange(&mut client, 1, SOON));
        proxy.cut();
        assert!(client.read(&mut [0]).map_or(true, |read| read == 0));
        let mut again = TcpStream::connect(proxy.address()).expect("connects");
        assert!(exchange(&mut again, 1, SOON));
    }
}
