//! What a device client decides by itself: URLs, back-off, and when not to come back. Whole
//! conversations are tested against the real hub, in `roost` and in `tests/`.

use std::time::Duration;

use super::{Backoff, Closed, ClosedBy, OpenError, Refusal, Retry, Url};

fn closed(code: u16) -> Closed {
    Closed { code, reason: String::new(), by: ClosedBy::Hub }
}

#[test]
fn a_url_is_completed_or_refused_with_an_example() {
    for (given, meant) in [
        ("ws://hub:7080", "ws://hub:7080/v1/connect"),
        ("ws://hub", "ws://hub:80/v1/connect"),
        ("wss://hub", "wss://hub:443/v1/connect"),
        ("wss://hub:7443/", "wss://hub:7443/v1/connect"),
        ("ws://[::1]:7080/", "ws://[::1]:7080/v1/connect"),
        ("ws://hub:1/v1/echo", "ws://hub:1/v1/echo"),
        ("ws://hub:1?device=a", "ws://hub:1/v1/connect?device=a"),
    ] {
        assert_eq!(given.parse::<Url>().unwrap().to_string(), meant);
    }
    let url: Url = "ws://hub:1?device=a".parse().unwrap();
    assert_eq!(
        url.with_query("tenant", "b").to_string(),
        "ws://hub:1/v1/connect?device=a&tenant=b"
    );
    for bad in ["", "hub:7080", "http://hub:7080", "wss://", "ws://"] {
        let error = bad.parse::<Url>().unwrap_err().to_string();
        assert!(error.contains("ws://127.0.0.1:7080"), "{bad}: {error}");
    }
}

#[test]
fn close_codes_say_whether_to_come_back() {
    let after = Some(Duration::from_secs(2));
    for (code, expected) in [
        (1000, Retry::After(Duration::from_secs(2))),
        (1012, Retry::After(Duration::from_secs(2))),
        (4413, Retry::After(Duration::from_secs(2))),
        (1009, Retry::WithoutRepeating),
        (4400, Retry::WithoutRepeating),
        (4401, Retry::WithNewCredential),
        (4403, Retry::Never),
        (4409, Retry::Never),
        (4410, Retry::Never),
    ] {
        assert_eq!(Retry::of_close(&closed(code), after), expected, "{code}");
    }
    let refused = |status| {
        Retry::of_open(&OpenError::Refused(Refusal {
            status,
            message: String::new(),
            retry_after: after,
        }))
    };
    assert_eq!(refused(503), Retry::After(Duration::from_secs(2)));
    assert_eq!(refused(401), Retry::WithNewCredential);
    assert_eq!(refused(404), Retry::Never);
}

#[tokio::test(start_paused = true)]
async fn back_off_grows_to_its_cap_and_starts_over_after_a_stable_minute() {
    let second = Duration::from_secs(1);
    let mut backoff = Backoff::new(second, 4 * second);
    let longest = |backoff: &Backoff| {
        let waits = (0..200).map(|_| backoff.clone().next(Duration::ZERO));
        waits.max().unwrap()
    };
    for most in [1, 2, 4, 4] {
        let found = longest(&backoff);
        let most = most * second;
        assert!(found <= most && found > most / 2, "{found:?} of {most:?}");
        assert!(backoff.next(3 * second) >= 3 * second);
    }
    backoff.connected();
    tokio::time::advance(59 * second).await;
    assert!(longest(&backoff) > second);
    backoff.connected();
    tokio::time::advance(60 * second).await;
    assert!(longest(&backoff) <= second);
}
