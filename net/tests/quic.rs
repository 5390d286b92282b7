//! The suite over QUIC on real sockets.
#![allow(missing_docs, clippy::unwrap_used)]

mod suite;
mod support;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use shoal_core::model::Role;
use shoal_wire::Kind;
use support::{Ground, Udp, WAIT, World};

fn run<F: Future<Output = ()> + 'static>(case: fn(Arc<dyn Ground>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(case(Arc::new(Udp::default())));
}

suite::cases!(run);

#[test]
fn connections_for_tasks_are_taken_while_the_actors_have_no_time() {
    let actors = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = World::new(&(Arc::new(Udp::default()) as Arc<dyn Ground>));
    let (_server, to) = actors.block_on(async { world.node(1, Role::Manager) });
    let ((tell, told), (go, gone)) = (mpsc::channel(), mpsc::channel());
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (caller, _) = world.node(2, Role::Worker);
            for _ in 0..2 {
                let (mut tx, mut rx) = caller.open(&to, Kind::Connect, vec![1], WAIT).await.unwrap();
                tx.send(Kind::FromNode, vec![7]).await.unwrap();
                tell.send(rx.recv().await.unwrap().unwrap().body).unwrap();
                let () = gone.recv().unwrap();
            }
        });
    });
    // Who calls is greeted by an actor; the second connection finds none that runs.
    actors.block_on(async {
        while told.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    go.send(()).unwrap();
    let body = told.recv_timeout(Duration::from_secs(20));
    go.send(()).unwrap();
    asking.join().unwrap();
    assert_eq!(body, Ok(vec![7]));
}

#[test]
fn the_way_to_a_node_is_measured_while_it_is_open() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(&(Arc::new(Udp::default()) as Arc<dyn Ground>));
        let (_server, to) = world.node(1, Role::Manager);
        let (caller, _) = world.node(2, Role::Worker);
        assert_eq!(caller.round_trips(), []);
        let (mut tx, mut rx) = caller.open(&to, Kind::Connect, vec![1], WAIT).await.unwrap();
        tx.send(Kind::FromNode, vec![7]).await.unwrap();
        rx.recv().await.unwrap().unwrap();
        let told = caller.round_trips();
        assert_eq!(told.iter().map(|(node, _)| Some(*node)).collect::<Vec<_>>(), [to.node_id]);
        assert!(told[0].1 > Duration::ZERO && told[0].1 < WAIT, "{told:?}");
    });
}
