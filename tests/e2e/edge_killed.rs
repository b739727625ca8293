//! Kill -9 of edge A: within the lease its devices are shown offline, and they answer through B.

use std::time::Duration;

use roost_proto::control::v1::{CommandState, Presence};
use roost_testkit::backend::{command, with_id};
use roost_testkit::device::TestDevice;
use roost_testkit::eventually;
use roost_testkit::process::TwoEdges;

/// How many devices were on edge A.
const DEVICES: usize = 50;
/// How long a node counts as alive here; the default is 10 s.
const LEASE: Duration = Duration::from_secs(5);
/// What a machine that is busy with other things may take on top of it.
const MARGIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_devices_go_offline_within_the_lease_and_answer_through_b() {
    let mut hub = TwoEdges::start(&[("ROOST_STORE__LEASE", "5s")]).await;
    let target = hub.target();
    let backend = target.backend().await;
    let mut devices: Vec<TestDevice> = vec![];
    for number in 0..DEVICES {
        devices.push(target.on_a(&format!("d-{number}")).await);
    }
    let mut stays = target.on_b("stays").await;
    // One command is with a device when its edge dies.
    backend.send(with_id("unfinished", command("d-0", "do"))).await;
    assert_eq!(devices[0].command().await.attempt, 1);

    hub.a.kill();
    for device in devices.drain(..) {
        assert_eq!(device.end().await.1.code, 1006);
    }
    let gone = async || (backend.devices(Presence::Online).await.len() == 1).then_some(());
    eventually("the devices of A are offline", LEASE + MARGIN, gone).await;
    // Shown offline by the lease at once; a sweep then writes down how each session ended.
    let told = async || {
        let offline = backend.devices(Presence::Offline).await;
        let codes = offline.iter().filter_map(|device| Some(device.last_close.as_ref()?.code));
        (codes.filter(|code| *code == 1006).count() == DEVICES).then_some(())
    };
    eventually("the hub tells how their sessions ended", MARGIN, told).await;
    backend.send(with_id("meanwhile", command("d-0", "do"))).await;

    for number in 0..DEVICES {
        let name = format!("d-{number}");
        let mut device = target.on_b(&name).await;
        if number == 0 {
            for (id, attempt) in [("unfinished", 2), ("meanwhile", 1)] {
                let got = device.command().await;
                assert_eq!((got.id.as_str(), got.attempt), (id, attempt));
                device.succeed(&got, None).await;
            }
        }
        let run = backend.run(command(&name, "hello"));
        let answering = async {
            let got = device.command().await;
            device.succeed(&got, None).await;
        };
        let (done, ()) = tokio::join!(run, answering);
        assert_eq!(done.state(), CommandState::Succeeded);
        let session = backend.device(&name).await.unwrap().session.unwrap();
        assert_eq!(session.node_id, "b");
        devices.push(device);
    }
    // Who was on B all the time noticed nothing.
    backend.send(command("stays", "hello")).await;
    let got = stays.command().await;
    stays.succeed(&got, None).await;
}
