//! SIGTERM: devices are told to come back, calls end, the process exits 0.

use roost_proto::control::v1::Presence;
use roost_testkit::HANGS;
use roost_testkit::backend::command;
use roost_testkit::keys::Keys;
use roost_testkit::process::{HubProcess, NodeOptions, TwoEdges};
use roost_wire::device::ToDevice;

use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_get_goaway_and_1012_and_the_process_exits_0() {
    let keys = Arc::new(Keys::generate());
    let mut hub = HubProcess::start(&keys, &NodeOptions::default());
    let target = hub.target(&keys);
    let backend = target.backend().await;
    let mut devices = vec![];
    for number in 0..20 {
        devices.push(target.on_a(&format!("d-{number}")).await);
    }
    // One has an answer to give while the hub goes away.
    backend.send(command("d-0", "do")).await;
    let got = devices[0].command().await;
    devices[0].succeed(&got, None).await;

    let ends = async {
        for device in devices {
            let (said, closed) = device.end().await;
            assert_eq!(closed.code, 1012, "{closed}");
            let goaway = said
                .iter()
                .any(|said| matches!(said, ToDevice::Goaway { retry_after_ms: Some(_), .. }));
            assert!(goaway, "{said:?}");
        }
    };
    let (status, ()) = tokio::join!(hub.terminate(), ends);
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_goes_leaves_no_session_behind_and_its_devices_go_to_the_other() {
    let mut hub = TwoEdges::start(&[]).await;
    let target = hub.target();
    let backend = target.backend().await;
    let device = target.on_a("mover").await;
    let (status, (said, closed)) = tokio::join!(hub.a.terminate(), device.end());
    assert_eq!(status.code(), Some(0));
    assert_eq!(closed.code, 1012, "{said:?}");
    // Released, not left to the lease.
    assert_eq!(backend.devices(Presence::Online).await, []);
    let mut device = target.on_b("mover").await;
    backend.send(command("mover", "hello")).await;
    let got = device.command().await;
    device.succeed(&got, None).await;
    assert_eq!(hub.b.terminate().await.code(), Some(0));
    assert_eq!(hub.control.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let keys = Arc::new(Keys::generate());
    let env = [("ROOST_SHUTDOWN__DELAY", "10m"), ("ROOST_SHUTDOWN__GRACE", "20m")];
    let options = NodeOptions { env: &env, ..NodeOptions::default() };
    let mut hub = HubProcess::start(&keys, &options);
    let admin = hub.admin();
    hub.signal(roost_testkit::process::Signal::TERM);
    let unready = async || (admin.readiness().await.code == 503).then_some(());
    roost_testkit::eventually("it is not ready any more", HANGS, unready).await;
    // It still takes devices during the delay: load balancers are slow to learn.
    let device = hub.target(&keys).on_a("late").await;
    assert_eq!(admin.get("/livez").await.0, 200);
    let (status, (_, closed)) = tokio::join!(hub.terminate(), device.end());
    assert_eq!(status.code(), Some(0));
    assert!(matches!(closed.code, 1012 | 1006), "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_skips_the_pace_but_not_the_word_to_each_device() {
    let keys = Arc::new(Keys::generate());
    let env = [("ROOST_SHUTDOWN__DRAIN", "600s"), ("ROOST_SHUTDOWN__GRACE", "700s")];
    let options = NodeOptions { env: &env, ..NodeOptions::default() };
    let mut hub = HubProcess::start(&keys, &options);
    let target = hub.target(&keys);
    let mut ends = tokio::task::JoinSet::new();
    for number in 0..60 {
        let device = target.on_a(&format!("d-{number}")).await;
        ends.spawn(device.end());
    }
    hub.signal(roost_testkit::process::Signal::TERM);
    let mut first = vec![ends.join_next().await.unwrap().unwrap()];
    let status = hub.terminate().await;
    assert_eq!(status.code(), Some(0));
    first.extend(ends.join_all().await);
    for (said, closed) in first {
        assert_eq!(closed.code, 1012, "{closed}");
        assert!(said.iter().any(|said| matches!(said, ToDevice::Goaway { .. })), "{said:?}");
    }
}
