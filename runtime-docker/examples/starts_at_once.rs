//! Measures how many containers are best made and started at once on the engine of this machine: prints, for each bound,
//! the time until all run. `cargo run --release --example starts_at_once -p shoal-runtime-docker -- IMAGE [COUNT]`, where
//! IMAGE has `/bin/busybox`.
#![allow(clippy::unwrap_used, reason = "a measurement that fails may panic")]

use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{
    ContainerSpec, Meta, NodeId, ServiceId, Slot, Task, TaskId, TaskSpec, TaskState, TaskStatus,
};
use shoal_core::task::Controller;
use shoal_runtime_docker::DockerController;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

fn task(image: &str, number: u128) -> Arc<Task> {
    let container = ContainerSpec {
        image: image.into(),
        command: vec!["/bin/busybox".into()],
        args: vec!["sleep".into(), "600".into()],
        stop_grace_period: Some(Duration::from_secs(2)),
        ..ContainerSpec::default()
    };
    Arc::new(Task {
        meta: Meta::default(),
        id: TaskId::from_u128(number),
        service_id: ServiceId::from_u128(1),
        service_name: "shoaltest-bench".into(),
        slot: Slot::Replica(1),
        node_id: None,
        spec: Arc::new(TaskSpec { container, ..TaskSpec::default() }),
        spec_version: 1,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    })
}

async fn round(engine: &Arc<DockerController>, image: &str, count: u128, places: usize) -> Duration {
    let (prepares, starts) = (Arc::new(Semaphore::new(places)), Arc::new(Semaphore::new(places)));
    let begin = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..count {
        let (engine, task) = (engine.clone(), task(image, (places as u128) << 32 | number));
        let (prepares, starts) = (prepares.clone(), starts.clone());
        all.spawn(async move {
            {
                let _turn = prepares.acquire().await?;
                engine.prepare(&task, Arc::new(|_| {})).await?;
            }
            let _turn = starts.acquire().await?;
            engine.start(&task).await?;
            anyhow::Ok(task)
        });
    }
    let tasks: Vec<_> = all.join_all().await.into_iter().map(Result::unwrap).collect();
    let time = begin.elapsed();
    let mut all = JoinSet::new();
    for task in tasks {
        let engine = engine.clone();
        all.spawn(async move { engine.remove(task.id).await });
    }
    all.join_all().await;
    time
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let image = args.next().ok_or_else(|| anyhow::anyhow!("an image is wanted"))?;
    let count = args.next().map_or(Ok(20), |count| count.parse())?;
    let socket = std::env::var("SHOAL_TEST_ENGINE").unwrap_or_else(|_| "/var/run/docker.sock".into());
    let node = NodeId::from_u128(u128::from(std::process::id()));
    let engine = Arc::new(DockerController::connect(&socket, node, "bench"));
    for _ in 0..3 {
        for places in [4, 6, 8, 16, 64] {
            let time = round(&engine, &image, count, places).await;
            println!("{count} containers, {places} at once: {:.2} s", time.as_secs_f64());
        }
    }
    Ok(())
}
