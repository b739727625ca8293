//! Waiting for what a hub under test says or becomes. Events are awaited under a limit that only a
//! hub that hangs reaches; what can only be asked for is asked for again.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes that works, on a machine that is busy with other things: what takes longer
/// hangs. For what has no time of its own.
pub const HANGS: Duration = Duration::from_secs(120);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// What the future gives.
///
/// # Panics
/// If it takes more than [`HANGS`]: something hangs.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = timeout(HANGS, future).await;
    waited.unwrap_or_else(|_| panic!("waited {HANGS:?} in vain for {what}"))
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within `within`.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "within {within:?} it did not come true: {what}");
        sleep(PAUSE).await;
    }
}
