//! A TCP proxy between a client and a server that can lose requests, replies, or a word's sense.
//!
//! With it a test can ask what happens when a `COMMIT` gets lost, or, worse, when the
//! server carried it out and only the answer got lost.
//!
//! It looks for the needle in the plain bytes, so the connection must not use TLS. Each
//! chunk that the client sends is searched together with the end of the one before, so a
//! needle that arrives in two packets is found too.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How much of a reply passes where no rule applies.
const ALL: usize = usize::MAX;

/// How long a poll leaves the processor to others.
const POLL: Duration = Duration::from_millis(1);

/// How long somebody waits for what a rule does.
const HIT_LIMIT: Duration = Duration::from_secs(30);

/// How long the proxy tries to reach the server.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A running proxy. Once it is dropped it takes no more clients; connections that exist go on.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    rule: Mutex<Option<Rule>>,
    hit: AtomicBool,
    closed: AtomicBool,
    /// What becomes of new clients once something was lost.
    then: Mutex<Then>,
    /// Connections to the server whose clients were cut off, and clients that get no answer.
    kept: Mutex<Vec<TcpStream>>,
}

type Action = Box<dyn FnOnce() + Send>;

struct Rule {
    needle: &'static [u8],
    does: Does,
    once: bool,
}

/// What happens to a request with the needle.
enum Does {
    Lose(Loses),
    Meet(Moment, Option<Action>),
}

/// What a rule loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loses {
    /// The server never gets the whole request.
    Request,
    /// The server never gets the request, and its session lives until [`let_go`](Proxy::let_go), or until the proxy is dropped.
    Client,
    /// The client gets no more than this many bytes of the reply.
    ReplyAfter(usize),
    /// The server never gets the request, and neither side hears that the other one is lost, until
    /// [`let_go`](Proxy::let_go), or until the proxy is dropped.
    RequestSilently,
    /// The server gets the request, and the client no reply; neither side hears that the other one is lost, likewise.
    ReplySilently,
    /// The last byte of the needle reaches the server as a question mark, which no SQL word has.
    Sense,
    /// The needle reaches the server as these bytes, of which there are as many. The client sends it in one piece.
    Words(&'static [u8]),
}

/// When something is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the server gets it.
    Before,
    /// Once it was sent to the server. Whether the server has carried it out nobody knows: the client gets no answer.
    Sent,
    /// Once the server has answered more than this many bytes. The client gets no more of them.
    Answered(usize),
}

/// What becomes of new clients once something was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// They are served.
    #[default]
    Serves,
    /// They are shut out.
    Refuses,
    /// They are connected, and nobody answers.
    IsSilent,
}

impl Proxy {
    /// Starts a proxy to `target` on a free port of this machine.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("the port that was bound");
        let shared = Arc::new(Shared::default());
        let of_listener = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if of_listener.closed.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                if of_listener.hit.load(Ordering::SeqCst) {
                    match *of_listener.then() {
                        Then::Serves => {}
                        Then::Refuses => continue,
                        Then::IsSilent => {
                            of_listener.keep(client);
                            continue;
                        }
                    }
                }
                let of_connection = Arc::clone(&of_listener);
                // An error ends this connection, and the client sees that.
                thread::spawn(move || carry(client, target, &of_connection));
            }
        });
        Self { addr, shared }
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same URL with the proxy's host and port.
    pub fn url(&self, original: &str) -> String {
        let (scheme, rest) = original.split_once("://").expect("a URL with a scheme");
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let user = authority.rfind('@').map_or("", |at| &authority[..=at]);
        format!("{scheme}://{user}{}{path}", self.addr)
    }

    /// From now on, when a client sends the needle: lets the server carry it out, waits for
    /// the first bytes of its answer, drops them and closes the connection.
    ///
    /// The first bytes must mean that the server is done. They do for a simple query. They do
    /// not for a statement that is prepared first: there they only say that it is prepared.
    pub fn drop_replies_when(&self, needle: &'static [u8]) {
        self.set(needle, Loses::ReplyAfter(0), false);
    }

    /// From now on, when a client sends the needle: closes the connection. The server never
    /// gets the whole request.
    pub fn drop_requests_when(&self, needle: &'static [u8]) {
        self.set(needle, Loses::Request, false);
    }

    /// The next time a client sends the needle: loses this, and nothing after it.
    pub fn lose_once(&self, needle: &'static [u8], loses: Loses) {
        self.set(needle, loses, true);
    }

    /// From now on, when a client sends the needle: loses this.
    pub fn lose_always(&self, needle: &'static [u8], loses: Loses) {
        self.set(needle, loses, false);
    }

    /// The next time a client sends the needle: loses this, and from then on nobody reaches the server, until
    /// [`clear`](Self::clear).
    pub fn lose_and_then(&self, needle: &'static [u8], loses: Loses, then: Then) {
        self.set(needle, loses, true);
        *self.shared.then() = then;
    }

    /// The next time a client sends the needle: does this, and nothing after it.
    pub fn meet_once(&self, needle: &'static [u8], moment: Moment, action: impl FnOnce() + Send + 'static) {
        self.set_rule(needle, Does::Meet(moment, Some(Box::new(action))), true);
    }

    /// Whether something was lost, or an action done, since the rule was set.
    pub fn hit(&self) -> bool {
        self.shared.hit.load(Ordering::SeqCst)
    }

    /// Waits until something was lost, or an action done; `false` after a limit.
    pub fn until_hit(&self) -> bool {
        let begin = Instant::now();
        while !self.hit() {
            if begin.elapsed() > HIT_LIMIT {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// Loses nothing from now on, and forgets that it did.
    pub fn clear(&self) {
        *self.shared.rule() = None;
        *self.shared.then() = Then::Serves;
        self.shared.hit.store(false, Ordering::SeqCst);
    }

    /// Ends the sessions whose clients were lost.
    pub fn let_go(&self) {
        for kept in self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may have ended by itself.
            let _ = kept.shutdown(Shutdown::Both);
        }
    }

    fn set(&self, needle: &'static [u8], loses: Loses, once: bool) {
        self.set_rule(needle, Does::Lose(loses), once);
    }

    fn set_rule(&self, needle: &'static [u8], does: Does, once: bool) {
        assert!(!needle.is_empty(), "an empty needle is in everything");
        self.shared.hit.store(false, Ordering::SeqCst);
        *self.shared.rule() = Some(Rule { needle, does, once });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.let_go();
        // Wakes the listener, so that it sees the change. If this fails it is gone already.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn then(&self) -> MutexGuard<'_, Then> {
        self.then.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, connection: TcpStream) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn hit(&self) {
        self.hit.store(true, Ordering::SeqCst);
    }

    fn rule(&self) -> MutexGuard<'_, Option<Rule>> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the two directions of a connection know of each other.
struct Replies {
    /// How much of them passes.
    passes: AtomicUsize,
    /// What is done when the first one comes that doesn't pass.
    action: Mutex<Option<Action>>,
    /// They wait for what is being done.
    held: AtomicBool,
    /// Nothing passes any more, and nobody hears of it.
    silent: AtomicBool,
}

/// Carries one connection until one side ends it or the rule applies.
fn carry(client: TcpStream, target: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;

    let replies = Replies {
        passes: AtomicUsize::new(ALL),
        action: Mutex::default(),
        held: AtomicBool::new(false),
        silent: AtomicBool::new(false),
    };
    let replies = Arc::new(replies);
    let (client_again, server_again) = (client.try_clone()?, server.try_clone()?);
    let (shared_again, replies_again) = (Arc::clone(shared), Arc::clone(&replies));
    thread::spawn(move || carry_replies(server_again, client_again, &shared_again, &replies_again));
    carry_requests(client, server, shared, &replies)
}

fn carry_requests(mut client: TcpStream, mut server: TcpStream, shared: &Shared, replies: &Replies) -> io::Result<()> {
    let mut tail = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let chunk = &mut buffer[..length];
        let mut sent = None;
        match applies(shared, &mut tail, chunk) {
            None => {}
            Some((last, Does::Lose(Loses::Sense))) => {
                chunk[last] = b'?';
                shared.hit();
            }
            Some((last, Does::Lose(Loses::Words(others)))) => {
                chunk[last + 1 - others.len()..=last].copy_from_slice(others);
                shared.hit();
            }
            Some((_, Does::Lose(Loses::Request))) => {
                shared.hit();
                server.shutdown(Shutdown::Both)?;
                return client.shutdown(Shutdown::Both);
            }
            Some((_, Does::Lose(Loses::Client))) => {
                shared.keep(server);
                shared.hit();
                return client.shutdown(Shutdown::Both);
            }
            Some((_, Does::Lose(Loses::RequestSilently))) => {
                replies.silent.store(true, Ordering::SeqCst);
                shared.keep(server);
                shared.keep(client);
                shared.hit();
                return Ok(());
            }
            // Set before the request goes out, or the answer could come first. The loop goes on, because the rest of the
            // request may be in the next chunk.
            Some((_, Does::Lose(Loses::ReplySilently))) => {
                replies.silent.store(true, Ordering::SeqCst);
                shared.keep(server.try_clone()?);
                shared.keep(client.try_clone()?);
            }
            Some((_, Does::Lose(Loses::ReplyAfter(kept)))) => replies.passes.store(kept, Ordering::SeqCst),
            Some((_, Does::Meet(Moment::Answered(kept), action))) => {
                *replies.action.lock().unwrap_or_else(PoisonError::into_inner) = action;
                replies.passes.store(kept, Ordering::SeqCst);
            }
            Some((_, Does::Meet(Moment::Before, action))) => {
                if let Some(action) = action {
                    action();
                }
                shared.hit();
            }
            Some((_, Does::Meet(Moment::Sent, action))) => {
                replies.passes.store(0, Ordering::SeqCst);
                replies.held.store(true, Ordering::SeqCst);
                sent = action;
            }
        }
        let written = server.write_all(chunk);
        if let Some(action) = sent {
            action();
            shared.hit();
            replies.held.store(false, Ordering::SeqCst);
        }
        if written.is_err() {
            break;
        }
    }
    if replies.silent.load(Ordering::SeqCst) {
        return Ok(());
    }
    // The server may still answer what it got.
    server.shutdown(Shutdown::Write)
}

/// What happens to this chunk, and the place of the needle's last byte.
fn applies(shared: &Shared, tail: &mut Vec<u8>, chunk: &[u8]) -> Option<(usize, Does)> {
    let mut held = shared.rule();
    let Some(rule) = &mut *held else {
        tail.clear();
        return None;
    };
    let last = completes(tail, chunk, rule.needle)?;
    if rule.once {
        return held.take().map(|rule| (last, rule.does));
    }
    let Does::Lose(loses) = &rule.does else { unreachable!("an action is done once") };
    Some((last, Does::Lose(*loses)))
}

fn carry_replies(mut server: TcpStream, mut client: TcpStream, shared: &Shared, replies: &Replies) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = server.read(&mut buffer);
        while replies.held.load(Ordering::SeqCst) {
            thread::sleep(POLL);
        }
        let Ok(length @ 1..) = read else { break };
        if replies.silent.load(Ordering::SeqCst) {
            shared.hit();
            return Ok(());
        }
        let left = replies.passes.load(Ordering::SeqCst);
        if left < length {
            let action = replies.action.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(action) = action {
                action();
            }
            // Before the client can notice.
            shared.hit();
            // It may be gone already.
            let _ = client.write_all(&buffer[..left]);
            break;
        } else if left != ALL {
            replies.passes.store(left - length, Ordering::SeqCst);
        }
        if client.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    if replies.silent.load(Ordering::SeqCst) {
        return Ok(());
    }
    // Each of the two may be closed already.
    let _ = server.shutdown(Shutdown::Both);
    client.shutdown(Shutdown::Both)
}

/// Where in this chunk the needle ends, if it does: the place of its last byte. Keeps the end of the chunk in `tail`, for
/// a needle that goes on in the next one.
fn completes(tail: &mut Vec<u8>, chunk: &[u8], needle: &[u8]) -> Option<usize> {
    let keep_end = |tail: &mut Vec<u8>| {
        let surplus = tail.len().saturating_sub(needle.len() - 1);
        tail.drain(..surplus);
    };
    // The needle may be another one than last time.
    keep_end(tail);
    let before = tail.len();
    tail.extend_from_slice(chunk);
    let found = tail.windows(needle.len()).position(|window| window == needle);
    keep_end(tail);
    found.map(|at| at + needle.len() - 1 - before)
}
