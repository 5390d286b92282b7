//! Events.

use std::time::Duration;

use serde_json::Value;
use shoal_core::model::{NodeId, NodeState, NodeStatus, Role};
use shoal_core::store::Write;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::fake::Fake;
use super::harness::{Server, filters};

async fn watch(server: &Server, query: &str) -> BufReader<UnixStream> {
    let mut stream = server.connect().await;
    let request = format!("GET /events{query} HTTP/1.1\r\nHost: d\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).await.unwrap();
    }
    reader
}

/// The next event; lines of the chunked encoding are passed over.
async fn event(reader: &mut BufReader<UnixStream>) -> Value {
    let next = async {
        loop {
            let mut line = String::new();
            assert_ne!(reader.read_line(&mut line).await.unwrap(), 0, "the stream has ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.expect("no event")
}

async fn create(server: &Server, name: &str) {
    let spec = format!(r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"nginx"}}}}}}"#);
    assert_eq!(server.ask("POST", "/services/create", &spec).await.status, 201);
}

#[tokio::test]
async fn changes_of_services_and_nodes_are_told_with_dockers_attributes() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    let mut all = watch(&server, "").await;
    let mut nodes = watch(&server, &format!("?filters={}", filters(r#"{"type":["node"]}"#))).await;
    create(&server, "web").await;
    let first = event(&mut all).await;
    assert_eq!(
        (&first["Type"], &first["Action"], &first["scope"]),
        (&"service".into(), &"create".into(), &"swarm".into())
    );
    assert_eq!(first["Actor"]["Attributes"]["name"], "web");
    let service = server.ask("GET", "/services/web", "").await.json();
    let mut spec = service["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = 3.into();
    let path = format!("/services/web/update?version={}", service["Version"]["Index"]);
    assert_eq!(server.ask("POST", &path, &spec.to_string()).await.status, 200);
    let update = event(&mut all).await;
    let attributes = &update["Actor"]["Attributes"];
    assert_eq!((&attributes["replicas.old"], &attributes["replicas.new"]), (&"1".into(), &"3".into()));

    let two = NodeId::from_u128(2);
    fake.add_node(two, "host2", Role::Worker, NodeState::Ready);
    assert_eq!(event(&mut nodes).await["Action"], "create");
    let down = NodeStatus { state: NodeState::Down, ..NodeStatus::default() };
    fake.apply(vec![Write::NodeStatus(two, down.clone())]);
    let changed = event(&mut nodes).await;
    assert_eq!(changed["Actor"]["Attributes"]["state.new"], "down");
    assert_eq!(changed["Actor"]["ID"], two.to_string());
    // The same again changes nothing that is told.
    fake.apply(vec![Write::NodeStatus(two, down)]);
    fake.apply(vec![Write::NodeRemove(two)]);
    let removed = event(&mut nodes).await;
    assert_eq!(
        (&removed["Action"], &removed["Actor"]["Attributes"]["name"]),
        (&"remove".into(), &"host2".into())
    );
}

#[tokio::test]
async fn networks_are_told_as_they_come_and_go() {
    let server = Server::start(&Fake::manager(), None).await;
    let mut networks = watch(&server, &format!("?filters={}", filters(r#"{"type":["network"]}"#))).await;
    let other = format!("?filters={}", filters(r#"{"network":["other"]}"#));
    let mut others = watch(&server, &other).await;
    let mut ids = Vec::new();
    for name in ["back", "other"] {
        let body = format!(r#"{{"Name":"{name}","Driver":"overlay"}}"#);
        let made = server.ask("POST", "/networks/create", &body).await.json();
        ids.push(made["Id"].clone());
        let told = event(&mut networks).await;
        assert_eq!((&told["Type"], &told["Action"]), (&"network".into(), &"create".into()));
        assert_eq!((&told["scope"], &told["Actor"]["ID"]), (&"swarm".into(), &made["Id"]));
        assert_eq!(told["Actor"]["Attributes"]["name"], name);
    }
    assert_eq!(event(&mut others).await["Actor"]["ID"], ids[1]);
    // What services do in a network changes nothing of it that is told.
    create(&server, "web").await;
    assert_eq!(server.ask("DELETE", "/networks/back", "").await.status, 204);
    let told = event(&mut networks).await;
    assert_eq!((&told["Action"], &told["Actor"]["ID"]), (&"remove".into(), &ids[0]));
    assert_eq!(told["Actor"]["Attributes"]["name"], "back");
}

#[tokio::test]
async fn what_came_and_went_at_once_is_still_told() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    let mut all = watch(&server, "").await;
    let two = NodeId::from_u128(2);
    fake.add_node(two, "host2", Role::Worker, NodeState::Ready);
    fake.apply(vec![Write::NodeRemove(two)]);
    assert_eq!(event(&mut all).await["Action"], "create");
    let removed = event(&mut all).await;
    assert_eq!((&removed["Action"], &removed["Actor"]["ID"]), (&"remove".into(), &two.to_string().into()));
}

#[tokio::test]
async fn the_engines_events_and_ours_come_in_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let fake = Fake::manager();
    let server = Server::start(&fake, Some(&socket)).await;
    let (mut stream, mut engine) = tokio::join!(watch(&server, ""), async {
        let (mut engine, _) = listener.accept().await.unwrap();
        engine.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        engine
    });
    engine.write_all(b"11\r\n{\"Type\":\"volume\"}\r\n").await.unwrap();
    create(&server, "web").await;
    // The engine's line is not whole yet: ours must not end up inside of it.
    assert_eq!(event(&mut stream).await["Type"], "service");
    engine.write_all(b"1\r\n\n\r\n").await.unwrap();
    assert_eq!(event(&mut stream).await["Type"], "volume");
}
