//! What is said of the end of a connection (RFC 9114, section 5.2).

use quinn::{Connection, ReadError, RecvStream};

use super::raw::{answer, closed, connection, get, has_status, say};
use super::*;

/// No request has this id or a greater one.
const NO_STREAM: u64 = (1 << 62) - 4;

/// The other side's control stream, behind its type and its settings.
async fn control(connection: &Connection) -> RecvStream {
    let mut control = connection.accept_uni().await.unwrap();
    let mut head = [0; 3];
    control.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..2], [0, 4], "settings come first");
    control.read_exact(&mut vec![0; usize::from(head[2])]).await.unwrap();
    control
}

/// The number in the GOAWAY that comes next.
async fn going(control: &mut RecvStream) -> u64 {
    let mut head = [0; 2];
    control.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 7, "GOAWAY");
    let mut number = vec![0; usize::from(head[1])];
    control.read_exact(&mut number).await.unwrap();
    // The first two bits are its length (RFC 9000, section 16).
    number[0] &= 0x3f;
    number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[test]
fn a_connection_says_that_it_ends_and_then_which_requests_are_not_served() {
    let world = world();
    on_sockets(async {
        let connection = connection(&world).await;
        let mut control = control(&connection).await;
        let (mut send, mut slow) = say(&connection, &get("/?delay=4000")).await;
        send.finish().unwrap();
        // It has to be there before the end is said.
        let (mut send, mut receive) = say(&connection, &get("/")).await;
        send.finish().unwrap();
        assert!(has_status(&answer(&mut receive).await.unwrap(), "200"));
        world.drain();
        assert_eq!(going(&mut control).await, NO_STREAM, "what is on its way is served, too");
        assert_eq!(going(&mut control).await, 8, "the third is not, nor what comes after it");
        let (_send, mut third) = say(&connection, &get("/")).await;
        let error = answer(&mut third).await.unwrap_err();
        assert!(matches!(error, ReadError::Reset(code) if u64::from(code) == 0x10b), "{error}");
        assert!(has_status(&answer(&mut slow).await.unwrap(), "200"), "it had begun");
        closed(&connection, "the end", 0x100).await;
    });
}
