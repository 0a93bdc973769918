//! What the proxy claims.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::proxy::{Loses, Moment, Proxy, Then};

const LIMIT: Duration = Duration::from_secs(10);

/// A server that sends everything back.
struct Echo {
    addr: SocketAddr,
    received: Receiver<Vec<u8>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, received) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender) = (stream.unwrap(), sender.clone());
                // A client of another test may come here, where its own proxy had this port, and would wait for a greeting.
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                thread::spawn(move || {
                    let mut all = Vec::new();
                    let mut buffer = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        all.extend_from_slice(&buffer[..length]);
                        if stream.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                    // The test may have ended.
                    let _ = sender.send(all);
                });
            }
        });
        Self { addr, received }
    }

    /// What the server got on a connection, once that connection ended.
    fn received(&self) -> Vec<u8> {
        self.received.recv_timeout(LIMIT).expect("a connection that ended")
    }
}

struct Client(TcpStream);

impl Client {
    fn connect(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends, and waits until the same came back.
    fn exchange(&mut self, bytes: &[u8]) {
        self.send(bytes);
        let mut reply = vec![0; bytes.len()];
        self.0.read_exact(&mut reply).unwrap();
        assert_eq!(reply, bytes);
    }

    /// Whether the connection was closed without another byte.
    fn hears_nothing(&mut self) -> bool {
        match self.0.read(&mut [0; 64]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

fn start() -> (Echo, Proxy) {
    let echo = Echo::start();
    let proxy = Proxy::start(echo.addr);
    (echo, proxy)
}

#[test]
fn a_client_that_is_cut_off_leaves_its_session_alive_for_as_long_as_the_proxy() {
    let (echo, proxy) = start();
    proxy.lose_always(b"COMMIT", Loses::Client);
    let mut client = Client::connect(&proxy);
    client.exchange(b"BEGIN;");
    client.send(b"COMMIT;");
    assert!(client.hears_nothing() && proxy.hit());
    assert!(echo.received.try_recv().is_err(), "the session has ended");
    drop(proxy);
    assert_eq!(echo.received(), b"BEGIN;");
}

#[test]
fn without_a_rule_everything_passes_both_ways() {
    let (echo, proxy) = start();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut client = Client::connect(&proxy);
    let mut writer = client.0.try_clone().unwrap();
    let to_send = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut reply = Vec::new();
    client.0.read_to_end(&mut reply).unwrap();
    writing.join().unwrap();
    assert!(reply == sent, "the reply differs");
    assert!(echo.received() == sent, "the server got something else");
    assert!(!proxy.hit());
}

#[test]
fn a_lost_reply_belongs_to_a_request_that_the_server_got() {
    let (echo, proxy) = start();
    proxy.drop_replies_when(b"COMMIT");
    let mut client = Client::connect(&proxy);
    client.exchange(b"INSERT;");
    assert!(!proxy.hit());
    client.send(b"COMMIT;");
    assert!(client.hears_nothing());
    assert!(proxy.hit());
    assert_eq!(echo.received(), b"INSERT;COMMIT;");
}

#[test]
fn a_reply_is_cut_where_the_rule_says() {
    let (echo, proxy) = start();
    proxy.lose_always(b"COMMIT", Loses::ReplyAfter(3));
    let mut client = Client::connect(&proxy);
    client.exchange(b"INSERT;");
    client.send(b"COMMIT;");
    let mut reply = Vec::new();
    // A reset may follow what was kept.
    let _ = client.0.read_to_end(&mut reply);
    assert_eq!(reply, b"COM");
    assert!(proxy.hit());
    assert_eq!(echo.received(), b"INSERT;COMMIT;");
}

#[test]
fn a_needle_without_sense_passes_with_another_last_byte() {
    let (echo, proxy) = start();
    proxy.lose_once(b"COMMIT", Loses::Sense);
    let mut client = Client::connect(&proxy);
    client.exchange(b"a COM");
    client.send(b"MIT; COMMIT;");
    let mut reply = [0; 12];
    client.0.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"MI?; COMMIT;");
    assert!(proxy.hit());
    client.exchange(b"COMMIT;");
    drop(client);
    assert_eq!(echo.received(), b"a COMMI?; COMMIT;COMMIT;");
}

#[test]
fn a_needle_passes_with_other_words_in_its_place() {
    let (echo, proxy) = start();
    proxy.lose_once(b"COMMIT", Loses::Words(b"DO 0--"));
    let mut client = Client::connect(&proxy);
    client.exchange(b"BEGIN;");
    client.send(b"a COMMIT; COMMIT;");
    let mut reply = [0; 17];
    client.0.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"a DO 0--; COMMIT;");
    assert!(proxy.hit());
    drop(client);
    assert_eq!(echo.received(), b"BEGIN;a DO 0--; COMMIT;");
}

#[test]
fn what_is_lost_in_silence_closes_neither_side_until_the_proxy_lets_go() {
    for (loses, expected) in [(Loses::RequestSilently, &b"BEGIN;"[..]), (Loses::ReplySilently, b"BEGIN;COMMIT;")] {
        let (echo, proxy) = start();
        proxy.lose_once(b"COMMIT", loses);
        let mut client = Client::connect(&proxy);
        client.exchange(b"BEGIN;");
        client.send(b"COMMIT;");
        assert!(proxy.until_hit());
        client.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let answer = client.0.read(&mut [0; 64]);
        assert!(answer.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "{loses:?}: somebody answered");
        assert!(echo.received.try_recv().is_err(), "{loses:?}: the session has ended");
        client.0.set_read_timeout(Some(LIMIT)).unwrap();
        proxy.let_go();
        assert!(client.hears_nothing(), "{loses:?}");
        assert_eq!(echo.received(), expected, "{loses:?}");
    }
}

#[test]
fn a_session_does_not_hear_that_a_client_is_gone_whose_connection_was_lost_in_silence() {
    let (echo, proxy) = start();
    proxy.lose_once(b"COMMIT", Loses::ReplySilently);
    let mut client = Client::connect(&proxy);
    client.send(b"COMMIT;");
    assert!(proxy.until_hit());
    drop(client);
    assert!(echo.received.recv_timeout(Duration::from_millis(50)).is_err(), "the session has ended");
    proxy.let_go();
    assert_eq!(echo.received(), b"COMMIT;");
}

#[test]
fn an_action_meets_the_request_before_it_is_sent_or_after_or_its_answer() {
    for (moment, client_hears) in [(Moment::Before, true), (Moment::Sent, false), (Moment::Answered(0), false)] {
        let (echo, proxy) = start();
        let (met, meets) = mpsc::channel();
        proxy.meet_once(b"COMMIT", moment, move || {
            met.send(()).unwrap();
        });
        let mut client = Client::connect(&proxy);
        client.exchange(b"BEGIN;");
        client.send(b"COMMIT;");
        meets.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{moment:?} was not met"));
        if client_hears {
            let mut reply = [0; 7];
            client.0.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"COMMIT;", "{moment:?}");
            client.exchange(b"COMMIT;");
            drop(client);
        } else {
            assert!(client.hears_nothing(), "{moment:?}");
        }
        assert!(proxy.hit(), "{moment:?}");
        let again = if client_hears { "COMMIT;" } else { "" };
        assert_eq!(echo.received(), format!("BEGIN;COMMIT;{again}").as_bytes(), "{moment:?}");
    }
}

#[test]
fn a_rule_for_once_applies_once() {
    let (_echo, proxy) = start();
    for loses in [Loses::Request, Loses::ReplyAfter(0)] {
        proxy.lose_once(b"COMMIT", loses);
        let mut client = Client::connect(&proxy);
        client.send(b"COMMIT;");
        assert!(client.hears_nothing());
        assert!(proxy.hit());
        Client::connect(&proxy).exchange(b"COMMIT;");
        assert!(proxy.hit(), "it is remembered");
    }
}

#[test]
fn a_lost_request_never_reaches_the_server() {
    let (echo, proxy) = start();
    proxy.drop_requests_when(b"COMMIT");
    let mut client = Client::connect(&proxy);
    client.exchange(b"INSERT;");
    assert!(!proxy.hit());
    client.send(b"COMMIT;");
    assert!(client.hears_nothing());
    assert!(proxy.hit());
    assert_eq!(echo.received(), b"INSERT;");
}

#[test]
fn a_needle_in_two_packets_loses_the_reply() {
    let (echo, proxy) = start();
    proxy.drop_replies_when(b"COMMIT");
    let mut client = Client::connect(&proxy);
    client.exchange(b"...COM");
    client.send(b"MIT;");
    assert!(client.hears_nothing());
    assert!(proxy.hit());
    assert_eq!(echo.received(), b"...COMMIT;");
}

#[test]
fn a_needle_in_packets_of_one_byte_loses_the_request() {
    let (echo, proxy) = start();
    proxy.drop_requests_when(b"COMMIT");
    let mut client = Client::connect(&proxy);
    for byte in b"COMCOMMI" {
        client.exchange(&[*byte]);
    }
    client.send(b"T");
    assert!(client.hears_nothing());
    assert!(proxy.hit());
    assert_eq!(echo.received(), b"COMCOMMI");
}

#[test]
fn what_was_sent_before_the_rule_is_not_searched() {
    let (echo, proxy) = start();
    let mut client = Client::connect(&proxy);
    client.exchange(b"COMMIT;");
    proxy.drop_requests_when(b"COMMIT");
    client.exchange(b"COM");
    proxy.clear();
    client.exchange(b"PARE;");
    proxy.drop_requests_when(b"COMMIT");
    client.exchange(b"MIT;");
    assert!(!proxy.hit());
    drop(client);
    assert_eq!(echo.received(), b"COMMIT;COMPARE;MIT;");
}

#[test]
fn a_rule_applies_to_every_connection_until_it_is_cleared() {
    let (_echo, proxy) = start();
    proxy.drop_replies_when(b"COMMIT");
    for _ in 0..2 {
        let mut client = Client::connect(&proxy);
        client.send(b"COMMIT;");
        assert!(client.hears_nothing());
        assert!(proxy.hit());
    }
    proxy.clear();
    assert!(!proxy.hit());
    Client::connect(&proxy).exchange(b"COMMIT;");
    assert!(!proxy.hit());
}

#[test]
fn a_server_that_is_gone_closes_the_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let proxy = Proxy::start(nobody);
    assert!(Client::connect(&proxy).hears_nothing());
}

#[test]
fn a_url_keeps_all_but_its_host_and_port() {
    let (_echo, proxy) = start();
    let addr = proxy.addr();
    for (original, expected) in [
        ("postgres://tester:secret@127.0.0.1:5432/test", format!("postgres://tester:secret@{addr}/test")),
        ("mysql://a%40b:c@db.example/test?x=y@z", format!("mysql://a%40b:c@{addr}/test?x=y@z")),
        ("postgres://localhost", format!("postgres://{addr}")),
    ] {
        assert_eq!(proxy.url(original), expected);
    }
}

#[test]
fn after_a_loss_new_clients_are_shut_out_or_never_answered_until_the_rule_is_cleared() {
    for then in [Then::Refuses, Then::IsSilent] {
        let (_echo, proxy) = start();
        proxy.lose_and_then(b"COMMIT", Loses::Request, then);
        let mut client = Client::connect(&proxy);
        client.exchange(b"BEGIN;");
        client.send(b"COMMIT;");
        assert!(client.hears_nothing() && proxy.hit());
        let mut late = Client::connect(&proxy);
        let silence = Duration::from_millis(50);
        late.0.set_read_timeout(Some(silence)).unwrap();
        let answer = late.0.read(&mut [0; 64]);
        match then {
            Then::Refuses => assert!(
                matches!(answer, Ok(0)) || answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
            ),
            _ => assert!(answer.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "somebody answered"),
        }
        proxy.clear();
        Client::connect(&proxy).exchange(b"SELECT;");
    }
}
