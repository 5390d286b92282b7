//! What each endpoint does and refuses.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_core::model::{NodeId, NodeState, Role};
use shoal_core::store::Write;

use super::fake::{Fake, OWN};
use super::harness::{Server, filters};

fn spec(name: &str) -> Value {
    json!({ "Name": name, "TaskTemplate": { "ContainerSpec": { "Image": "nginx" } } })
}

async fn create(server: &Server, spec: &Value) -> String {
    let reply = server.ask("POST", "/services/create", &spec.to_string()).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["ID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn without_a_cluster_swarm_calls_say_how_to_get_one() {
    let server = Server::start(&Fake::inactive(), None).await;
    for path in ["/swarm", "/nodes", "/services", "/v1.41/tasks", "/secrets", "/services/x", "/nodes/self"] {
        let reply = server.ask("GET", path, "").await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.message().contains("docker swarm init"), "{}", reply.message());
    }
    let reply = server.ask("POST", "/services/create", &spec("web").to_string()).await;
    assert_eq!(reply.status, 503);
    assert_eq!(server.ask("POST", "/swarm/leave", "").await.status, 503);
    assert_eq!(server.ask("GET", "/info", "").await.json()["Swarm"]["LocalNodeState"], "inactive");
}

#[tokio::test]
async fn a_worker_sends_people_to_a_manager() {
    let fake = Fake::manager();
    fake.local(|local| local.is_manager = false);
    let server = Server::start(&fake, None).await;
    let reply = server.ask("GET", "/nodes", "").await;
    assert_eq!(reply.status, 503);
    assert!(reply.message().contains("Worker nodes can't be used"), "{}", reply.message());
    assert_eq!(server.ask("GET", "/_ping", "").await.header("swarm").as_deref(), Some("active/worker"));
    assert_eq!(server.ask("GET", "/info", "").await.json()["Swarm"]["ControlAvailable"], false);
}

#[tokio::test]
async fn init_join_and_leave_go_through_the_node() {
    let server = Server::start(&Fake::inactive(), None).await;
    let init = json!({ "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "", "DefaultAddrPool": null,
        "SubnetSize": 24, "Spec": { "Labels": null, "Raft": {}, "CAConfig": {} } });
    let reply = server.ask("POST", "/swarm/init", &init.to_string()).await;
    assert_eq!((reply.status, reply.json()), (200, json!(OWN.to_string())));
    let info = server.ask("GET", "/info", "").await.json()["Swarm"]["Cluster"].clone();
    for shown in [server.ask("GET", "/swarm", "").await.json(), info] {
        assert_eq!(shown["DefaultAddrPool"], json!(["10.128.0.0/9"]));
        assert_eq!(shown["SubnetSize"], 20);
    }
    let again = server.ask("POST", "/swarm/init", "{}").await;
    assert_eq!(again.status, 503);
    assert!(again.message().contains("already part of a swarm"));
    assert_eq!(server.ask("POST", "/swarm/leave", "").await.status, 503);
    assert_eq!(server.ask("POST", "/swarm/leave?force=1", "").await.status, 200);
    let join = json!({ "RemoteAddrs": ["10.1.1.1:2377"], "JoinToken": "SWMTKN-1-a-b", "ListenAddr": "" });
    assert_eq!(server.ask("POST", "/swarm/join", &join.to_string()).await.status, 200);
    assert_eq!(server.ask("GET", "/_ping", "").await.header("swarm").as_deref(), Some("active/worker"));
}

#[tokio::test]
async fn networks_get_their_ranges_from_the_pools_of_init() {
    for (body, shown, subnet) in [
        (
            r#"{"DefaultAddrPool":["10.20.0.0/16","172.30.0.0/16"],"SubnetSize":26}"#,
            json!([["10.20.0.0/16", "172.30.0.0/16"], 26]),
            "10.20.0.0/26",
        ),
        (r#"{"DefaultAddrPool":["10.20.0.0/16"]}"#, json!([["10.20.0.0/16"], 24]), "10.20.0.0/24"),
        (r#"{"DefaultAddrPool":[],"SubnetSize":22}"#, json!([["10.128.0.0/9"], 22]), "10.128.0.0/22"),
    ] {
        let server = Server::start(&Fake::inactive(), None).await;
        assert_eq!(server.ask("POST", "/swarm/init", body).await.status, 200, "{body}");
        let swarm = server.ask("GET", "/swarm", "").await.json();
        let info = server.ask("GET", "/info", "").await.json()["Swarm"]["Cluster"].clone();
        // A change of other settings leaves them as they are.
        let path = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
        assert_eq!(server.ask("POST", &path, &swarm["Spec"].to_string()).await.status, 200);
        for seen in [swarm, info, server.ask("GET", "/swarm", "").await.json()] {
            assert_eq!(json!([seen["DefaultAddrPool"], seen["SubnetSize"]]), shown);
        }
        let made = server.ask("POST", "/networks/create", r#"{"Name":"back","Driver":"overlay"}"#).await;
        assert_eq!(made.status, 201, "{made:?}");
        let network = server.ask("GET", "/networks/back", "").await.json();
        assert_eq!(network["IPAM"]["Config"][0]["Subnet"], subnet);
    }
}

#[tokio::test]
async fn what_init_and_join_cannot_do_is_refused_by_name() {
    let server = Server::start(&Fake::inactive(), None).await;
    for (path, body, field) in [
        ("/swarm/init", r#"{"AutoLockManagers":true}"#, "AutoLockManagers"),
        ("/swarm/init", r#"{"Spec":{"EncryptionConfig":{"AutoLockManagers":true}}}"#, "AutoLockManagers"),
        ("/swarm/init", r#"{"ListenAddr":"10.0.0.9:2377"}"#, "ListenAddr"),
        ("/swarm/init", r#"{"DataPathAddr":"10.0.0.9"}"#, "DataPathAddr"),
        ("/swarm/init", r#"{"DataPathPort":7777}"#, "DataPathPort"),
        ("/swarm/init", r#"{"DefaultAddrPool":["fd00::/8"]}"#, "DefaultAddrPool"),
        ("/swarm/init", r#"{"DefaultAddrPool":["10.0.0.0/8","10.1.0.0/16"]}"#, "DefaultAddrPool"),
        ("/swarm/init", r#"{"SubnetSize":30}"#, "SubnetSize"),
        ("/swarm/init", r#"{"DefaultAddrPool":["10.0.0.0/16"],"SubnetSize":8}"#, "SubnetSize"),
        ("/swarm/init", r#"{"Availability":"lazy"}"#, "Availability"),
        ("/swarm/init", r#"{"Spec":{"Orchestration":{"Foo":1}}}"#, "unknown field Spec.Orchestration.Foo"),
        ("/swarm/join", r#"{"RemoteAddrs":["a"]}"#, "JoinToken"),
        ("/swarm/join", r#"{"JoinToken":"a"}"#, "RemoteAddrs"),
    ] {
        let reply = server.ask("POST", path, body).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.message().contains(field), "{body}: {}", reply.message());
    }
}

#[tokio::test]
async fn tokens_rotate_one_at_a_time_and_keep_the_authoritys_digest() {
    let server = Server::start(&Fake::manager(), None).await;
    let before = server.ask("GET", "/swarm", "").await.json();
    let update = |query: &str| {
        let path = format!("/swarm/update?version={}&{query}", before["Version"]["Index"]);
        (path, before["Spec"].to_string())
    };
    let (path, body) = update("rotateWorkerToken=true&rotateManagerToken=false");
    assert_eq!(server.ask("POST", &path, &body).await.status, 200);
    let after = server.ask("GET", "/swarm", "").await.json();
    assert_eq!(before["JoinTokens"]["Manager"], after["JoinTokens"]["Manager"]);
    assert_ne!(before["JoinTokens"]["Worker"], after["JoinTokens"]["Worker"]);
    let worker = after["JoinTokens"]["Worker"].as_str().unwrap();
    assert!(worker.starts_with("SWMTKN-1-digest-") && worker.len() == "SWMTKN-1-digest-".len() + 25);
    let again = server.ask("POST", &path, &body).await;
    assert_eq!(again.status, 409);
    assert!(again.message().contains("update out of sequence"));
    assert_eq!(server.ask("GET", "/swarm/unlockkey", "").await.json(), json!({ "UnlockKey": "" }));
    let unlock = server.ask("POST", "/swarm/unlock", r#"{"UnlockKey":"x"}"#).await;
    assert_eq!((unlock.status, unlock.message().as_str()), (409, "swarm is not locked"));
}

#[tokio::test]
async fn a_label_says_at_which_addresses_a_port_answers() {
    let server = Server::start(&Fake::manager(), None).await;
    let published = |name: &str, label: &str, value: &str| {
        let mut spec = spec(name);
        spec["Labels"] = json!({ label: value });
        spec["EndpointSpec"] = json!({ "Ports": [{ "TargetPort": 80, "PublishedPort": 8080 }] });
        spec
    };
    create(&server, &published("in", "shoal.publish.8080", "127.0.0.1,::1")).await;
    create(&server, &published("out", "shoal.publish.8080/tcp", "10.0.0.0/8")).await;
    for (label, value, status, words) in [
        ("shoal.publish.8080", "127.0.0.0/8", 400, "already in use by service 'in'"),
        // Either of the two is in the way of one that is everywhere.
        ("a", "b", 400, "already in use by service '"),
        ("shoal.publish.8081", "::1", 400, "Spec.Labels.shoal.publish.8081: port 8081 is not published"),
        ("shoal.publish.8080/udp", "::1", 400, "Spec.Labels.shoal.publish.8080/udp: port 8080/udp is not"),
        ("shoal.publish.8080", "here", 400, "Spec.Labels.shoal.publish.8080: \"here\" is no address"),
    ] {
        let reply =
            server.ask("POST", "/services/create", &published("more", label, value).to_string()).await;
        assert_eq!(reply.status, status, "{label}={value}: {reply:?}");
        assert!(reply.message().contains(words), "{label}={value}: {}", reply.message());
    }
}

#[tokio::test]
async fn a_service_lives_from_create_to_remove() {
    let server = Server::start(&Fake::manager(), None).await;
    let mut web = spec("web");
    web["Mode"] = json!({ "Replicated": { "Replicas": 3 } });
    let id = create(&server, &web).await;
    let taken = server.ask("POST", "/services/create", &web.to_string()).await;
    assert_eq!(taken.status, 409);
    assert!(taken.message().contains("service web already exists"), "{}", taken.message());

    let list = server.ask("GET", "/services?status=true", "").await.json();
    assert_eq!(list[0]["ServiceStatus"], json!({"RunningTasks":3,"DesiredTasks":3,"CompletedTasks":0}));
    let path = format!("/tasks?filters={}", filters(r#"{"service":{"web":true}}"#));
    let tasks = server.ask("GET", &path, "").await;
    assert_eq!(tasks.json().as_array().unwrap().len(), 3);

    let inspected =
        server.ask("GET", &format!("/services/{}?insertDefaults=true", &id[..20]), "").await.json();
    assert_eq!(inspected["Spec"]["UpdateConfig"]["Parallelism"], 1);
    let index = inspected["Version"]["Index"].as_u64().unwrap();
    let mut next = server.ask("GET", "/services/web", "").await.json()["Spec"].clone();
    next["Mode"]["Replicated"]["Replicas"] = json!(1);
    let path = format!("/services/web/update?version={index}");
    assert_eq!(server.ask("POST", &path, &next.to_string()).await.json(), json!({ "Warnings": null }));
    let late = server.ask("POST", &path, &next.to_string()).await;
    assert_eq!(late.status, 409);
    assert!(late.message().contains("update out of sequence"));
    let now = server.ask("GET", "/services/web", "").await.json();
    assert_eq!(now["PreviousSpec"]["Mode"]["Replicated"]["Replicas"], 3);

    let back = format!("/services/web/update?version={}&rollback=previous", now["Version"]["Index"]);
    assert_eq!(server.ask("POST", &back, "{}").await.status, 200);
    let now = server.ask("GET", "/services/web", "").await.json();
    assert_eq!(now["Spec"]["Mode"]["Replicated"]["Replicas"], 3);

    assert_eq!(server.ask("DELETE", "/services/web", "").await.status, 200);
    let gone = server.ask("GET", "/services/web", "").await;
    assert_eq!((gone.status, gone.message().as_str()), (404, "service web not found"));
}

#[tokio::test]
async fn a_name_and_a_mode_stay_what_they_are() {
    let server = Server::start(&Fake::manager(), None).await;
    create(&server, &spec("web")).await;
    let version = server.ask("GET", "/services/web", "").await.json()["Version"]["Index"].clone();
    let path = format!("/services/web/update?version={version}");
    assert_eq!(server.ask("POST", &path, &spec("other").to_string()).await.status, 501);
    let mut global = spec("web");
    global["Mode"] = json!({ "Global": {} });
    assert_eq!(server.ask("POST", &path, &global.to_string()).await.status, 501);
    let back = server.ask("POST", &format!("{path}&rollback=previous"), "").await;
    assert!(back.status == 400 && back.message().contains("previous spec"), "{back:?}");
    assert_eq!(server.ask("POST", "/services/web/update", "{}").await.status, 400);
}

#[tokio::test]
async fn an_empty_name_is_invented_and_credentials_are_kept_and_never_shown() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    let reply = server
        .ask_with("POST", "/services/create", "X-Registry-Auth: c2VjcmV0\r\n", &spec("").to_string())
        .await;
    assert_eq!(reply.status, 201);
    let state = fake.now();
    let service = state.services().next().unwrap();
    assert!(service.spec.name.contains('_'), "{}", service.spec.name);
    let auth = service.spec.task.container.registry_auth.clone().unwrap();
    assert_eq!(auth.0.0, b"c2VjcmV0");
    let shown = server.ask("GET", "/services", "").await;
    assert!(!String::from_utf8_lossy(&shown.body).contains("c2VjcmV0"));
    // An update without credentials keeps them.
    let json = &shown.json()[0];
    let path = format!("/services/{}/update?version={}", service.id, json["Version"]["Index"]);
    assert_eq!(server.ask("POST", &path, &json["Spec"].to_string()).await.status, 200);
    let kept = fake.now().services().next().unwrap().spec.task.container.registry_auth.clone();
    assert_eq!(kept, Some(auth));
}

#[tokio::test]
async fn without_a_leader_writes_fail_in_time_and_reads_say_that_they_may_be_stale() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    fake.faults(|f| (f.stale, f.no_leader) = (true, true));
    let read = server.ask("GET", "/nodes", "").await;
    assert_eq!(read.status, 200);
    assert_eq!(read.header("shoal-stale").as_deref(), Some("no majority since 3 s"));
    assert!(read.header("warning").unwrap().starts_with("199 "));
    let write = server.ask("POST", "/services/create", &spec("web").to_string()).await;
    assert_eq!(write.status, 503);
    assert!(write.message().contains("no leader: 2 of 3"), "{}", write.message());
    fake.faults(|f| f.hang = true);
    let before = Instant::now();
    let write = server.ask("POST", "/services/create", &spec("web").to_string()).await;
    assert_eq!(write.status, 503);
    assert!(before.elapsed() < Duration::from_millis(5_500));
}

#[tokio::test]
async fn nodes_are_found_by_id_prefix_name_and_self() {
    let fake = Fake::manager();
    fake.add_node(NodeId::from_u128(u128::MAX), "host2", Role::Worker, NodeState::Ready);
    let server = Server::start(&fake, None).await;
    for wanted in ["self", "host1", &OWN.to_string()] {
        let node = server.ask("GET", &format!("/nodes/{wanted}"), "").await.json();
        assert_eq!(node["ID"], OWN.to_string(), "{wanted}");
        assert_eq!(node["ManagerStatus"]["Leader"], true);
        assert_eq!(node["Status"]["Addr"], "10.1.1.1");
        assert!(node["Description"]["TLSInfo"]["TrustRoot"].as_str().unwrap().contains("BEGIN CERT"));
    }
    assert_eq!(server.ask("GET", "/nodes/f5lxx", "").await.json()["Description"]["Hostname"], "host2");
    assert_eq!(server.ask("GET", "/nodes/none", "").await.message(), "node none not found");
    let of = |json: &'static str| format!("/nodes?filters={}", filters(json));
    for (json, count) in [
        (r#"{"role":["worker"]}"#, 1),
        (r#"{"name":["host"]}"#, 2),
        (r#"{"id":["f5l"]}"#, 1),
        (r#"{"membership":["accepted"]}"#, 2),
        (r#"{"node.label":["zone"]}"#, 0),
        (r#"{"label":["disk=ssd"]}"#, 0),
    ] {
        let found = server.ask("GET", &of(json), "").await.json();
        assert_eq!(found.as_array().unwrap().len(), count, "{json}");
    }
    assert_eq!(server.ask("GET", &of(r#"{"rolle":["worker"]}"#), "").await.status, 400);
    assert_eq!(server.ask("GET", &of(r#"{"role":["boss"]}"#), "").await.status, 400);
}

async fn set_role(server: &Server, node: &str, role: &str) -> super::harness::Reply {
    let json = server.ask("GET", &format!("/nodes/{node}"), "").await.json();
    let mut spec = json["Spec"].clone();
    spec["Role"] = json!(role);
    let path = format!("/nodes/{node}/update?version={}", json["Version"]["Index"]);
    server.ask("POST", &path, &spec.to_string()).await
}

#[tokio::test]
async fn a_demotion_that_would_lose_quorum_is_refused_with_the_reason() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    let last = set_role(&server, "host1", "worker").await;
    assert_eq!(last.status, 400);
    assert!(last.message().contains("last manager"), "{}", last.message());

    let (two, three) = (NodeId::from_u128(2), NodeId::from_u128(3));
    fake.add_node(two, "host2", Role::Manager, NodeState::Ready);
    fake.add_node(three, "host3", Role::Manager, NodeState::Down);
    fake.faults(|f| f.unreachable = vec![three]);
    let refused = set_role(&server, "host2", "worker").await;
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("loss of quorum"), "{}", refused.message());
    assert_eq!(set_role(&server, "host3", "worker").await.status, 200);
    // Its seat is still there, so that removing it must wait.
    let early = server.ask("DELETE", "/nodes/host3?force=1", "").await;
    assert!(early.status == 400 && early.message().contains("still being demoted"), "{early:?}");
    fake.apply(vec![Write::NodeManager(three, None), Write::NodeRole(three, Role::Worker)]);
    assert_eq!(server.ask("DELETE", "/nodes/host3", "").await.status, 200);
}

#[tokio::test]
async fn a_node_is_removed_only_when_it_is_down_or_by_force_and_never_a_manager() {
    let fake = Fake::manager();
    let two = NodeId::from_u128(2);
    fake.add_node(two, "host2", Role::Worker, NodeState::Ready);
    let server = Server::start(&fake, None).await;
    let up = server.ask("DELETE", "/nodes/host2", "").await;
    assert!(up.status == 400 && up.message().contains("not down"), "{up:?}");
    let manager = server.ask("DELETE", "/nodes/host1?force=1", "").await;
    assert!(manager.status == 400 && manager.message().contains("demoted to worker before removal"));
    assert_eq!(server.ask("DELETE", "/nodes/host2?force=1", "").await.status, 200);
    assert!(fake.now().is_removed(two));
}

#[tokio::test]
async fn task_filters_narrow_down_and_unknown_ones_are_refused() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    let mut web = spec("web");
    web["Mode"] = json!({ "Replicated": { "Replicas": 2 } });
    web["Labels"] = json!({ "tier": "front" });
    create(&server, &web).await;
    create(&server, &spec("db")).await;
    for (json, count) in [
        (r#"{"service":["web"]}"#, 2),
        (r#"{"node":["self"]}"#, 3),
        (r#"{"name":["web.1"]}"#, 1),
        (r#"{"label":["tier=front"]}"#, 2),
        (r#"{"desired-state":["running"]}"#, 3),
        (r#"{"desired-state":["shutdown"]}"#, 0),
        (r#"{"_up-to-date":["true"],"service":["web"]}"#, 2),
        (r#"{"runtime":["plugin"]}"#, 0),
    ] {
        let found = server.ask("GET", &format!("/tasks?filters={}", filters(json)), "").await.json();
        assert_eq!(found.as_array().unwrap().len(), count, "{json}");
    }
    for (json, status) in
        [(r#"{"service":["x"]}"#, 404), (r#"{"desired-state":["up"]}"#, 400), (r#"{"slot":["1"]}"#, 400)]
    {
        let reply = server.ask("GET", &format!("/tasks?filters={}", filters(json)), "").await;
        assert_eq!(reply.status, status, "{json}");
    }
}

#[tokio::test]
async fn a_change_that_replaces_no_task_leaves_all_up_to_date() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    create(&server, &spec("web")).await;
    let old = std::sync::Arc::clone(fake.now().tasks().next().unwrap());
    let service = server.ask("GET", "/services/web", "").await.json();
    let mut spec = service["Spec"].clone();
    spec["TaskTemplate"]["RestartPolicy"]["Condition"] = json!("none");
    let path = format!("/services/web/update?version={}", service["Version"]["Index"]);
    assert_eq!(server.ask("POST", &path, &spec.to_string()).await.status, 200);
    // Put the old task back beside the one that the fake has made.
    fake.forget_reconciling();
    let state = fake.now();
    fake.apply(state.tasks().map(|t| Write::TaskRemove(t.id)).collect());
    fake.apply(vec![Write::TaskCreate(old)]);
    let path = format!("/tasks?filters={}", filters(r#"{"_up-to-date":["true"]}"#));
    assert_eq!(server.ask("GET", &path, "").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_there_yet_is_refused_in_words() {
    let server = Server::start(&Fake::manager(), None).await;
    assert_eq!(server.ask("GET", "/secrets", "").await.json(), json!([]));
    assert_eq!(server.ask("GET", "/v1.30/configs", "").await.json(), json!([]));
    for (method, path, status) in [
        ("POST", "/secrets/create", 501),
        ("POST", "/configs/create", 501),
        ("GET", "/secrets/x", 404),
        ("GET", "/services/x/logs", 501),
        ("GET", "/tasks/x/logs", 501),
        ("PUT", "/services", 404),
        ("GET", "/shoal/v1/none", 404),
        ("GET", "/v1.23/services", 400),
        ("GET", "/v1.51/services", 400),
    ] {
        let reply = server.ask(method, path, "{}").await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(!reply.message().is_empty());
    }
}
