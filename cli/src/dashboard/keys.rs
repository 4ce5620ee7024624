//! Who is at the other end: the tab that was opened with the printed address, and nobody else on this machine.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

/// Tabs that are remembered; the oldest is forgotten then.
const MOST: usize = 32;

/// A secret in text: 256 bits.
fn secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The token of the next address, and the keys that were given for those before.
#[derive(Debug)]
pub struct Keys(Mutex<State>);

#[derive(Debug)]
struct State {
    token: String,
    given: Vec<String>,
}

impl Keys {
    /// Nobody has a key yet.
    pub fn new() -> Self {
        Self(Mutex::new(State { token: secret(), given: Vec::new() }))
    }

    /// The token of the next address.
    pub fn token(&self) -> String {
        self.0.lock().token.clone()
    }

    /// A key for the token, which is good once.
    pub fn exchange(&self, token: &str) -> Option<String> {
        let mut state = self.0.lock();
        if !is_same(token, &state.token) {
            return None;
        }
        state.token = secret();
        if state.given.len() == MOST {
            state.given.remove(0);
        }
        let key = secret();
        state.given.push(key.clone());
        Some(key)
    }

    /// Whether a key was given.
    pub fn has(&self, key: &str) -> bool {
        self.0.lock().given.iter().any(|given| is_same(given, key))
    }
}
