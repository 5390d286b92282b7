//! Containers that users make, in networks of the cluster.

use std::sync::Arc;

use serde_json::{Value, json};
use shoal_core::model::Attachment;

use super::fake::{Fake, OWN};
use super::harness::{Reply, Server};
use super::networks::answer;
use super::proxying::CannedEngine;

struct Ground {
    fake: Arc<Fake>,
    engine: CannedEngine,
    server: Server,
}

impl Ground {
    /// A manager with an attachable network `back`, and `shut` that is none.
    async fn new() -> Self {
        let (fake, mut engine) = (Fake::manager(), CannedEngine::start());
        let server = Server::start(&fake, Some(&engine.socket())).await;
        for (name, attachable) in [("back", true), ("shut", false)] {
            let body = json!({"Name": name, "Driver": "overlay", "Attachable": attachable}).to_string();
            // The engine has none of that name.
            let none = answer("404 Not Found", "{}");
            let (reply, _) =
                tokio::join!(server.ask("POST", "/networks/create", &body), engine.answer(&none));
            assert_eq!(reply.status, 201);
        }
        Self { fake, engine, server }
    }

    fn attachments(&self) -> Vec<Arc<Attachment>> {
        self.fake.now().attachments().cloned().collect()
    }

    async fn ask(&self, path: &str, body: &Value) -> Reply {
        self.server.ask("POST", path, &body.to_string()).await
    }

    /// Make a container in `back`. Returns what the engine was asked.
    async fn make(&mut self) -> Value {
        let body = json!({"Image": "x", "HostConfig": {"NetworkMode": "back"},
            "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["www"]}}}});
        let body = body.to_string();
        let (reply, asked) =
            tokio::join!(self.server.ask("POST", "/v1.41/containers/create?name=box", &body), async {
                let asked = self.engine.answer_body(&made()).await;
                self.engine.answer(&described("box", "{}")).await;
                asked
            });
        assert_eq!((reply.status, &reply.json()["Id"]), (201, &json!("c0ffee")));
        assert!(asked.0.starts_with("POST /v1.41/containers/create?name=box HTTP"), "{}", asked.0);
        asked.1
    }
}

fn made() -> String {
    answer("201 Created", r#"{"Id":"c0ffee","Warnings":[]}"#)
}

fn described(name: &str, labels: &str) -> String {
    answer("200 OK", &format!(r#"{{"Id":"c0ffee","Name":"/{name}","Config":{{"Labels":{labels}}}}}"#))
}

#[tokio::test]
async fn a_container_is_made_with_the_address_that_the_managers_gave() {
    let mut ground = Ground::new().await;
    let asked = ground.make().await;
    let id = ground.attachments()[0].id.to_string();
    assert_eq!(asked["HostConfig"], json!({"NetworkMode": "back", "Dns": ["10.128.0.1"]}));
    let endpoint = json!({"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.128.0.2"}});
    assert_eq!(asked["NetworkingConfig"]["EndpointsConfig"], json!({"back": endpoint}));
    assert_eq!((&asked["Image"], &asked["Labels"]), (&json!("x"), &json!({"shoal.attachment": id})));
    let attachments = ground.attachments();
    let attachment = &attachments[0];
    assert_eq!((attachment.container.as_str(), attachment.name.as_str()), ("c0ffee", "box"));
    assert_eq!((attachment.node, &attachment.networks[0].aliases), (OWN, &vec!["www".to_owned()]));
    let network = ground.server.ask("GET", "/networks/back", "").await.json();
    let shown = json!({"Name": "box", "EndpointID": id, "MacAddress": "", "IPv4Address": "10.128.0.2/20",
        "IPv6Address": ""});
    assert_eq!(network["Containers"], json!({"c0ffee": shown}));
    let kept = ground.server.ask("DELETE", "/networks/back", "").await;
    assert_eq!(kept.status, 403);
    assert_eq!(kept.message(), "network 'back' is in use by container 'box' on node host1");
}

#[tokio::test]
async fn what_the_engine_does_not_make_has_no_place() {
    let mut ground = Ground::new().await;
    let body = json!({"Image": "x", "HostConfig": {"NetworkMode": "back"}});
    let missing = answer("404 Not Found", r#"{"message":"No such image: x"}"#);
    let text = body.to_string();
    let (reply, _) = tokio::join!(
        ground.server.ask("POST", "/containers/create", &text),
        ground.engine.answer_body(&missing)
    );
    assert_eq!((reply.status, reply.message().as_str()), (404, "No such image: x"));
    assert_eq!(ground.attachments(), []);

    // One that cannot be named to the managers is removed again.
    let (reply, asked) = tokio::join!(ground.server.ask("POST", "/containers/create", &text), async {
        ground.engine.answer_body(&made()).await;
        ground.engine.answer(&answer("404 Not Found", "{}")).await;
        ground.engine.answer(&answer("204 No Content", "")).await
    });
    assert_eq!(reply.status, 409, "{reply:?}");
    assert!(asked.starts_with("DELETE /containers/c0ffee?force=1&v=1 "), "{asked}");
    assert_eq!(ground.attachments(), []);
}

#[tokio::test]
async fn what_the_engine_may_have_made_keeps_its_place_until_the_node_has_looked() {
    let mut ground = Ground::new().await;
    let body = json!({"Image": "x", "HostConfig": {"NetworkMode": "back"}}).to_string();
    let (reply, _) =
        tokio::join!(ground.server.ask("POST", "/containers/create", &body), ground.engine.answer_body(""));
    assert_eq!((reply.status, ground.attachments().len()), (503, 1), "{reply:?}");
}

#[tokio::test]
async fn what_cannot_be_in_a_network_is_refused_by_name() {
    let ground = Ground::new().await;
    let refused = ground.ask("/containers/create", &json!({"HostConfig": {"NetworkMode": "shut"}})).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.message().contains("'shut'") && refused.message().contains("--attachable"),
        "{refused:?}"
    );
    let fixed = json!({"HostConfig": {"NetworkMode": "back"},
        "NetworkingConfig": {"EndpointsConfig": {"back": {"IPAMConfig": {"IPv4Address": "10.128.0.9"}}}}});
    let refused = ground.ask("/containers/create", &fixed).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.message().contains("IPAMConfig.IPv4Address") && refused.message().contains("--ip"),
        "{refused:?}"
    );
    assert_eq!(ground.attachments(), []);
}

#[tokio::test]
async fn containers_in_other_networks_are_the_engines() {
    let mut ground = Ground::new().await;
    let made = made();
    for mode in ["", "bridge", "host", "none", "container:box", "plain"] {
        let body = json!({"HostConfig": {"NetworkMode": mode}});
        let text = body.to_string();
        let (reply, asked) = tokio::join!(
            ground.server.ask("POST", "/containers/create", &text),
            ground.engine.answer_body(&made)
        );
        assert_eq!((reply.status, asked.1), (201, body), "{mode}");
    }
    let (reply, asked) = tokio::join!(
        ground.server.ask("POST", "/containers/create", "nonsense"),
        ground.engine.answer(&made)
    );
    assert!(reply.status == 201 && asked.starts_with("POST /containers/create "), "{asked}");
    assert_eq!(ground.attachments(), []);
}

#[tokio::test]
async fn without_a_leader_the_engines_own_networks_go_on() {
    let mut ground = Ground::new().await;
    ground.fake.faults(|faults| faults.no_leader = true);
    let plain = json!({"HostConfig": {"NetworkMode": "plain"}}).to_string();
    let (reply, asked) = tokio::join!(ground.server.ask("POST", "/containers/create", &plain), async {
        let asked = ground.engine.answer(&answer("200 OK", r#"{"Name":"plain","Labels":{}}"#)).await;
        ground.engine.answer_body(&made()).await;
        asked
    });
    assert!(reply.status == 201 && asked.starts_with("GET /networks/plain "), "{asked}");
    for known in [
        answer("404 Not Found", "{}"),
        answer("200 OK", r#"{"Name":"back","Labels":{"shoal.network.id":"x"}}"#),
    ] {
        let back = json!({"HostConfig": {"NetworkMode": "back"}}).to_string();
        let (reply, _) = tokio::join!(
            ground.server.ask("POST", "/containers/create", &back),
            ground.engine.answer(&known)
        );
        assert!(reply.status == 503 && reply.message().contains("no leader"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_container_enters_and_leaves_a_network_later() {
    let mut ground = Ground::new().await;
    let id = ground.fake.now().network_named("back").unwrap().id.to_string();
    let body = json!({"Container": "box", "EndpointConfig": {"Aliases": ["www"]}}).to_string();
    let path = format!("/v1.41/networks/{id}/connect");
    let (reply, asked) = tokio::join!(ground.server.ask("POST", &path, &body), async {
        ground.engine.answer(&described("box", "{}")).await;
        ground.engine.answer_body(&answer("200 OK", "")).await
    });
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(asked.0.starts_with("POST /v1.41/networks/back/connect "), "{}", asked.0);
    let settings = json!({"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.128.0.2"}});
    assert_eq!(asked.1, json!({"Container": "box", "EndpointConfig": settings}));
    assert_eq!(ground.attachments()[0].name, "box");

    // In it already: the engine says so, and the place stays.
    let (reply, _) = tokio::join!(ground.server.ask("POST", "/networks/back/connect", &body), async {
        ground.engine.answer(&described("box", "{}")).await;
        ground.engine.answer_body(&answer("403 Forbidden", r#"{"message":"already exists"}"#)).await
    });
    assert_eq!((reply.status, ground.attachments().len()), (403, 1));

    let body = json!({"Container": "box", "Force": false}).to_string();
    let path = format!("/networks/{id}/disconnect");
    let (reply, asked) = tokio::join!(ground.server.ask("POST", &path, &body), async {
        ground.engine.answer(&described("box", "{}")).await;
        ground.engine.answer_body(&answer("200 OK", "")).await
    });
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(asked.0.starts_with("POST /networks/back/disconnect "), "{}", asked.0);
    assert_eq!(ground.attachments(), []);
}

#[tokio::test]
async fn neither_tasks_nor_what_the_engine_refuses_enters_a_network() {
    let mut ground = Ground::new().await;
    let body = json!({"Container": "box"}).to_string();
    let task = described("web.1.x", r#"{"com.docker.swarm.task.id":"x"}"#);
    let (reply, _) =
        tokio::join!(ground.server.ask("POST", "/networks/back/connect", &body), ground.engine.answer(&task));
    assert!(reply.status == 403 && reply.message().contains("--network-add"), "{reply:?}");
    assert_eq!(ground.attachments(), []);
    let (reply, _) = tokio::join!(ground.server.ask("POST", "/networks/back/connect", &body), async {
        ground.engine.answer(&described("box", "{}")).await;
        ground.engine.answer_body(&answer("500 Internal Server Error", r#"{"message":"no"}"#)).await
    });
    assert_eq!((reply.status, ground.attachments()), (500, vec![]));
    let (reply, _) = tokio::join!(ground.server.ask("POST", "/networks/shut/connect", &body), async {
        ground.engine.answer(&described("box", "{}")).await;
    });
    assert!(reply.status == 403 && reply.message().contains("--attachable"), "{reply:?}");
}

/// A service's specification, as a client sends it.
fn service(name: &str) -> Value {
    json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "x"},
        "Networks": [{"Target": "back", "Aliases": ["www"]}]}})
}

#[tokio::test]
async fn a_container_that_would_hide_a_service_is_refused_by_name() {
    let mut ground = Ground::new().await;
    let created = ground.ask("/services/create", &service("web")).await;
    assert_eq!(created.status, 201, "{created:?}");
    let wish = |alias: &str, host: &str| {
        json!({"Image": "x", "Hostname": host, "HostConfig": {"NetworkMode": "back"},
            "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": [alias]}}}})
    };
    for (path, body) in [
        ("/containers/create?name=web", wish("", "")),
        ("/containers/create?name=box", wish("WWW", "")),
        ("/containers/create", wish("", "web")),
    ] {
        let refused = ground.ask(path, &body).await;
        assert_eq!(refused.status, 409, "{path} {body}: {refused:?}");
        assert!(refused.message().contains("is a name of service 'web' in network 'back'"), "{refused:?}");
    }
    assert_eq!(ground.attachments(), []);
    // One that is there already.
    let connect = json!({"Container": "box", "EndpointConfig": {"Aliases": ["web"]}}).to_string();
    let (refused, ()) = tokio::join!(ground.server.ask("POST", "/networks/back/connect", &connect), async {
        ground.engine.answer(&described("box", "{}")).await;
    });
    assert!(refused.status == 409 && refused.message().contains("service 'web'"), "{refused:?}");
    assert_eq!(ground.attachments(), []);
}

#[tokio::test]
async fn a_container_is_renamed_once_the_managers_know_it() {
    let mut ground = Ground::new().await;
    ground.ask("/services/create", &service("web")).await;
    let body = json!({"Container": "box"}).to_string();
    tokio::join!(ground.server.ask("POST", "/networks/back/connect", &body), async {
        ground.engine.answer(&described("box", "{}")).await;
        ground.engine.answer_body(&answer("200 OK", "")).await;
    });
    let (refused, ()) =
        tokio::join!(ground.server.ask("POST", "/v1.41/containers/box/rename?name=web", ""), async {
            ground.engine.answer(&described("box", "{}")).await;
        });
    assert!(refused.status == 409 && refused.message().contains("service 'web'"), "{refused:?}");
    assert_eq!(ground.attachments()[0].name, "box");
    for (said, expected) in [("204 No Content", "crate"), ("409 Conflict", "box")] {
        let (reply, asked) =
            tokio::join!(ground.server.ask("POST", "/v1.41/containers/box/rename?name=crate", ""), async {
                ground.engine.answer(&described("box", "{}")).await;
                ground.engine.answer(&answer(said, "")).await
            });
        assert!(said.starts_with(&reply.status.to_string()), "{reply:?}");
        assert!(asked.starts_with("POST /v1.41/containers/box/rename?name=crate "), "{asked}");
        assert_eq!(ground.attachments()[0].name, expected);
    }
}

#[tokio::test]
async fn a_service_that_a_container_would_hide_is_refused_by_name() {
    let mut ground = Ground::new().await;
    ground.make().await;
    for name in ["box", "www"] {
        let refused = ground.ask("/services/create", &service(name)).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.message().contains("container 'box' on node host1"), "{refused:?}");
    }
    // An alias counts as the name does, and what comes with an update as what comes with the service.
    let alone = json!({"Name": "api", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}});
    assert_eq!(ground.ask("/services/create", &alone).await.status, 201);
    let version = ground.server.ask("GET", "/services/api", "").await.json()["Version"]["Index"].clone();
    let refused = ground.ask(&format!("/services/api/update?version={version}"), &service("api")).await;
    assert!(refused.status == 409 && refused.message().contains("the name 'www'"), "{refused:?}");
}
