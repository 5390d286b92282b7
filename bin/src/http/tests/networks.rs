//! Networks that span nodes, beside those of the engine.

use serde_json::{Value, json};
use shoal_core::model::TaskState;
use shoal_core::store::Write;

use super::fake::{Fake, OWN};
use super::harness::{Reply, Server, filters};
use super::proxying::CannedEngine;

async fn create(server: &Server, body: &Value) -> Reply {
    server.ask("POST", "/networks/create", &body.to_string()).await
}

async fn id_of(server: &Server, body: &Value) -> String {
    let reply = create(server, body).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.json()["Warning"], "");
    reply.json()["Id"].as_str().unwrap().to_owned()
}

/// The same where an engine is asked whether it has a network of that name.
async fn id_beside(server: &Server, engine: &mut CannedEngine, body: &Value) -> String {
    let none = answer("404 Not Found", "{}");
    tokio::join!(id_of(server, body), engine.answer(&none)).0
}

pub(super) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_network_lives_from_create_to_remove() {
    let server = Server::start(&Fake::manager(), None).await;
    // As Docker's command line sends it.
    let plain = json!({"CheckDuplicate": true, "Driver": "overlay", "EnableIPv6": false, "Internal": false,
        "IPAM": {"Driver": "default", "Options": {}, "Config": []}, "Attachable": false, "Ingress": false,
        "ConfigOnly": false, "ConfigFrom": null, "Options": {"encrypted": ""}, "Labels": {"a": "b"}, "Name": "back"});
    let id = id_of(&server, &plain).await;
    let taken = create(&server, &plain).await;
    assert_eq!((taken.status, taken.message().as_str()), (409, "network with name back already exists"));
    for wanted in ["back", id.as_str(), &id[..20]] {
        let network = server.ask("GET", &format!("/networks/{wanted}"), "").await.json();
        assert_eq!((&network["Name"], &network["Id"]), (&json!("back"), &json!(id)), "{wanted}");
    }
    let network = server.ask("GET", "/v1.41/networks/back?verbose=true&scope=swarm", "").await.json();
    let config = json!([{"Subnet": "10.128.0.0/20", "Gateway": "10.128.0.1"}]);
    assert_eq!(network["IPAM"], json!({"Driver": "default", "Options": null, "Config": config}));
    for (field, value) in [
        ("Scope", json!("swarm")),
        ("Driver", json!("overlay")),
        ("EnableIPv6", json!(false)),
        ("Internal", json!(false)),
        ("Attachable", json!(false)),
        ("Ingress", json!(false)),
        ("ConfigOnly", json!(false)),
        ("ConfigFrom", json!({"Network": ""})),
        ("Containers", json!({})),
        ("Services", json!({})),
        ("Options", json!({"encrypted": ""})),
        ("Labels", json!({"a": "b"})),
    ] {
        assert_eq!(network[field], value, "{field}");
    }
    for action in ["connect", "disconnect"] {
        // Containers are the engine's, and there is none.
        let refused = server.ask("POST", &format!("/networks/back/{action}"), r#"{"Container":"x"}"#).await;
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    assert_eq!(server.ask("DELETE", "/networks/back", "").await.status, 204);
    // What is not ours is the engine's, and there is none.
    assert_eq!(server.ask("GET", "/networks/back", "").await.status, 503);
}

#[tokio::test]
async fn ranges_are_taken_as_given_and_the_second_family_is_added() {
    let server = Server::start(&Fake::manager(), None).await;
    let both = json!({"Name": "six", "Scope": "swarm", "EnableIPv6": true, "Internal": true,
        "IPAM": {"Config": [{"Subnet": "10.9.8.0/24", "Gateway": "10.9.8.254", "IPRange": "10.9.8.64/26"}]}});
    id_of(&server, &both).await;
    let network = server.ask("GET", "/networks/six", "").await.json();
    let config = network["IPAM"]["Config"].as_array().unwrap();
    assert_eq!(
        config[0],
        json!({"Subnet": "10.9.8.0/24", "Gateway": "10.9.8.254", "IPRange": "10.9.8.64/26"})
    );
    assert!(config[1]["Subnet"].as_str().unwrap().starts_with("fd"), "{config:?}");
    assert_eq!((&network["EnableIPv6"], &network["Internal"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn what_a_network_cannot_be_is_refused_by_field() {
    let server = Server::start(&Fake::manager(), None).await;
    for (fields, named) in [
        (json!({"Name": ""}), "Name: "),
        (json!({"Name": "a b"}), "Name: "),
        (json!({"Name": "host"}), "Name: "),
        (json!({"Ingress": true}), "Ingress: there is no ingress network"),
        (json!({"ConfigOnly": true}), "ConfigOnly: "),
        (json!({"ConfigFrom": {"Network": "x"}}), "ConfigFrom: "),
        (json!({"Scope": "local"}), "Scope: "),
        (json!({"Scope": "swarm", "Driver": "bridge"}), "Driver: "),
        (json!({"EnableIPv4": false}), "EnableIPv4: "),
        (json!({"Foo": 1}), "unknown field Foo"),
        (json!({"Internal": "yes"}), "Internal: "),
        (json!({"IPAM": {"Driver": "dhcp"}}), "IPAM.Driver: "),
        (json!({"IPAM": {"Options": {"a": "b"}}}), "IPAM.Options: "),
        (json!({"IPAM": {"Config": [{"Subnet": "10.0.0.0/31"}]}}), "IPAM.Config[0].Subnet: "),
        (json!({"IPAM": {"Config": [{"Subnet": "x"}]}}), "IPAM.Config[0].Subnet: "),
        (json!({"IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}), "IPAM.Config[0].Subnet: "),
        (
            json!({"IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "Gateway": "x"}]}}),
            "IPAM.Config[0].Gateway: ",
        ),
        (
            json!({"IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "IPRange": "10.0.1.0/25"}]}}),
            "IPAM.Config[0].IPRange: 10.0.1.0/25 is no part of",
        ),
        (json!({"IPAM": {"Config": [{"IPRange": "10.0.1.0/25"}]}}), "IPAM.Config[0].Subnet: "),
        (
            json!({"IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "IPRange": "x"}]}}),
            "IPAM.Config[0].IPRange: ",
        ),
        (
            json!({"IPAM": {"Config": [{"AuxiliaryAddresses": {"a": "10.0.0.9"}}]}}),
            "IPAM.Config[0].AuxiliaryAddresses: ",
        ),
        (json!({"IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}), "IPAM.Config[0].Subnet: "),
        (
            json!({"IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}, {"Subnet": "10.6.0.0/24"}]}}),
            "IPAM.Config[1].Subnet: ",
        ),
    ] {
        let mut body = json!({"Name": "n", "Driver": "overlay"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let reply = create(&server, &body).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.message().starts_with(named), "{body}: {}", reply.message());
    }
    let node = json!({"Name": "n", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": "10.1.1.0/24"}]}});
    let reply = create(&server, &node).await;
    assert!(reply.status == 400 && reply.message().contains("overlaps with node"), "{reply:?}");
}

#[tokio::test]
async fn lists_hold_the_engines_networks_and_ours_without_our_bridges() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::manager(), Some(&engine.socket())).await;
    let body = json!({"Name": "back", "driver": "overlay", "Labels": {"a": "1"}});
    let id = id_beside(&server, &mut engine, &body).await;
    let theirs = json!([{"Name": "bridge", "Id": "f00", "Driver": "bridge", "Scope": "local", "Labels": {}},
        {"Name": "plain", "Labels": null},
        {"Name": "back", "Id": "f01", "Driver": "bridge", "Labels": {"shoal.network.id": id}}]);
    let canned = answer("200 OK", &theirs.to_string());
    let (list, asked) = tokio::join!(server.ask("GET", "/v1.41/networks", ""), engine.answer(&canned));
    assert!(asked.starts_with("GET /v1.41/networks HTTP"), "{asked}");
    let list = list.json();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bridge", "plain", "back"]);
    assert_eq!((&list[2]["Id"], &list[2]["Scope"]), (&json!(id), &json!("swarm")));
    for (json, count) in [
        (r#"{"driver":["overlay"]}"#, 1),
        (r#"{"driver":["bridge"]}"#, 0),
        (r#"{"scope":["swarm"]}"#, 1),
        (r#"{"scope":{"local":true}}"#, 0),
        (r#"{"type":["custom"]}"#, 1),
        (r#"{"type":["builtin"]}"#, 0),
        (r#"{"name":["ac"]}"#, 1),
        (r#"{"name":["^back$"]}"#, 1),
        (r#"{"name":["^ack"]}"#, 0),
        (r#"{"label":["a=1"]}"#, 1),
        (r#"{"label":["a=2"]}"#, 0),
        (r#"{"dangling":["true"]}"#, 1),
        (r#"{"dangling":["false"]}"#, 0),
    ] {
        let path = format!("/networks?filters={}", filters(json));
        let canned = answer("200 OK", "null");
        let (list, asked) = tokio::join!(server.ask("GET", &path, ""), engine.answer(&canned));
        assert!(asked.starts_with(&format!("GET {path} ")), "{asked}");
        assert_eq!(list.json().as_array().unwrap().len(), count, "{json}");
    }
    let canned = answer("400 Bad Request", r#"{"message":"no"}"#);
    let (refused, _) = tokio::join!(server.ask("GET", "/networks", ""), engine.answer(&canned));
    assert_eq!((refused.status, refused.message().as_str()), (400, "no"));
    let unknown =
        server.ask("GET", &format!("/networks?filters={}", filters(r#"{"colour":["red"]}"#)), "").await;
    assert!(unknown.status == 400 && unknown.message().contains("colour"), "{unknown:?}");
    // An engine that is away takes nothing from ours.
    drop(engine);
    let alone = server.ask("GET", "/networks", "").await.json();
    assert_eq!((alone.as_array().unwrap().len(), &alone[0]["Id"]), (1, &json!(id)));
}

#[tokio::test]
async fn what_is_not_ours_goes_to_the_engine() {
    let mut engine = CannedEngine::start();
    let fake = Fake::manager();
    let server = Server::start(&fake, Some(&engine.socket())).await;
    let id = id_beside(&server, &mut engine, &json!({"Name": "back", "Driver": "overlay"})).await;
    let canned = answer("200 OK", r#"{"Name":"plain"}"#);
    for (method, path, looks) in [
        ("GET", "/networks/plain?verbose=true", false),
        ("DELETE", "/networks/plain", true),
        ("POST", "/networks/plain/connect", true),
        ("POST", "/networks/plain/disconnect", true),
        ("GET", "/networks/back?scope=local", false),
    ] {
        let (reply, asked) = tokio::join!(server.ask(method, path, ""), async {
            if looks {
                // Whether it is a bridge of ours.
                assert!(engine.answer(&canned).await.starts_with("GET /networks/plain "));
            }
            engine.answer(&canned).await
        });
        assert!(asked.starts_with(&format!("{method} {path} ")), "{asked}");
        assert_eq!(reply.status, 200, "{path}");
    }
    // A name of the engine's that is also the beginning of our id stays the engine's.
    let start = &id[..3];
    let canned = answer("200 OK", &json!({"Name": start}).to_string());
    let path = format!("/networks/{start}");
    let (reply, _) = tokio::join!(server.ask("DELETE", &path, ""), async {
        engine.answer(&canned).await;
        engine.answer(&canned).await;
        engine.answer(&canned).await
    });
    assert_eq!((reply.status, fake.now().networks().len()), (200, 1));
    let canned = answer("404 Not Found", "{}");
    let (reply, _) = tokio::join!(server.ask("DELETE", &path, ""), engine.answer(&canned));
    assert_eq!((reply.status, fake.now().networks().len()), (204, 0));
}

#[tokio::test]
async fn a_worker_shows_the_engines_networks_and_makes_none_that_span_nodes() {
    let mut engine = CannedEngine::start();
    let fake = Fake::manager();
    fake.local(|local| local.is_manager = false);
    let server = Server::start(&fake, Some(&engine.socket())).await;
    let reply = create(&server, &json!({"Name": "back", "Driver": "overlay"})).await;
    assert!(reply.status == 503 && reply.message().contains("Worker nodes"), "{reply:?}");
    let canned = answer("200 OK", r#"[{"Name":"bridge"}]"#);
    let (list, _) = tokio::join!(server.ask("GET", "/networks", ""), engine.answer(&canned));
    assert_eq!(list.json(), json!([{"Name": "bridge"}]));
}

#[tokio::test]
async fn bridges_of_ours_are_spared_by_name_and_by_id() {
    let mut engine = CannedEngine::start();
    let fake = Fake::manager();
    fake.local(|local| local.is_manager = false);
    let server = Server::start(&fake, Some(&engine.socket())).await;
    let bridge =
        json!({"Name": "back", "Id": "f01d", "Driver": "bridge", "Labels": {"shoal.network.id": "9"}});
    let canned = answer("200 OK", &bridge.to_string());
    for (method, path) in [
        ("DELETE", "/networks/back"),
        ("DELETE", "/networks/f01d"),
        ("POST", "/networks/back/connect"),
        ("POST", "/networks/f01d/disconnect"),
    ] {
        let (reply, _) = tokio::join!(server.ask(method, path, ""), engine.answer(&canned));
        let words = reply.message();
        assert_eq!(reply.status, 403, "{path}: {reply:?}");
        assert!(
            words.contains("the bridge of network back (9)") && words.contains("ask a manager"),
            "{words}"
        );
    }
    // A worker knows a name by its bridge.
    let plain = json!({"Name": "back", "Driver": "bridge"});
    let (reply, _) = tokio::join!(create(&server, &plain), engine.answer(&canned));
    assert_eq!(reply.status, 409);
    assert!(reply.message().contains("network back (9) of the cluster spans nodes"), "{}", reply.message());
}

#[tokio::test]
async fn a_name_is_the_engines_or_the_clusters() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::manager(), Some(&engine.socket())).await;
    let overlay = |name: &str| json!({"Name": name, "Driver": "overlay"});
    let canned = answer("404 Not Found", "{}");
    let body = overlay("back");
    let (reply, asked) = tokio::join!(create(&server, &body), engine.answer(&canned));
    assert!(reply.status == 201 && asked.starts_with("GET /networks/back "), "{reply:?} {asked}");
    let id = reply.json()["Id"].as_str().unwrap().to_owned();
    let local = create(&server, &json!({"name": "back"})).await;
    assert_eq!(local.status, 409);
    assert!(local.message().contains(&format!("network back ({id}) of the cluster")), "{}", local.message());
    let canned = answer("200 OK", r#"{"Name":"plain","Id":"f00","Driver":"macvlan","Labels":null}"#);
    let body = overlay("plain");
    let (reply, _) = tokio::join!(create(&server, &body), engine.answer(&canned));
    assert_eq!(reply.status, 409);
    assert!(
        reply.message().contains("network plain (f00, driver macvlan) of its own"),
        "{}",
        reply.message()
    );
    // The beginning of an id is no name, and neither is an engine that is away.
    let body = overlay("pla");
    let (reply, _) = tokio::join!(create(&server, &body), engine.answer(&canned));
    assert_eq!(reply.status, 201);
    drop(engine);
    assert_eq!(create(&server, &overlay("alone")).await.status, 201);
}

#[tokio::test]
async fn a_prune_removes_what_nothing_is_in_and_spares_our_bridges() {
    let mut engine = CannedEngine::start();
    let fake = Fake::manager();
    let server = Server::start(&fake, Some(&engine.socket())).await;
    for (name, labels) in [("busy", json!({})), ("idle", json!({})), ("kept", json!({"keep": "1"}))] {
        let body = json!({"Name": name, "Driver": "overlay", "Labels": labels});
        id_beside(&server, &mut engine, &body).await;
    }
    let web = service("web", &json!([{"Target": "busy"}]));
    assert_eq!(server.ask("POST", "/services/create", &web).await.status, 201);
    let found = json!([{"Name": "plain", "Id": "f00", "Created": "2020-01-01T00:00:00.5Z", "Labels": null},
        {"Name": "new", "Id": "f01", "Created": "2999-01-01T00:00:00Z", "Labels": {}},
        {"Name": "taken", "Id": "f02", "Created": "2020-01-01T00:00:00Z", "Labels": {"a": "b"}},
        {"Name": "back", "Id": "f03", "Created": "2020-01-01T00:00:00Z", "Labels": {"shoal.network.id": "7"}}]);
    let found = answer("200 OK", &found.to_string());
    let path = format!("/v1.41/networks/prune?filters={}", filters(r#"{"label!":["keep"],"until":["0s"]}"#));
    let (reply, asked) = tokio::join!(server.ask("POST", &path, ""), async {
        [
            engine.answer(&found).await,
            engine.answer(&answer("204 No Content", "")).await,
            engine.answer(&answer("403 Forbidden", r#"{"message":"has active endpoints"}"#)).await,
        ]
    });
    assert_eq!((reply.status, reply.json()), (200, json!({"NetworksDeleted": ["plain", "idle"]})));
    assert!(asked[0].starts_with("GET /networks?filters="), "{asked:?}");
    assert!(
        asked[1].starts_with("DELETE /networks/f00 ") && asked[2].starts_with("DELETE /networks/f02 "),
        "{asked:?}"
    );
    let names: Vec<String> = fake.now().networks().map(|network| network.spec.name.clone()).collect();
    assert!(names.len() == 2 && !names.contains(&"idle".to_owned()), "{names:?}");
    let wrong = server
        .ask("POST", &format!("/networks/prune?filters={}", filters(r#"{"until":["soon"]}"#)), "")
        .await;
    assert!(wrong.status == 400 && wrong.message().contains("until=soon"), "{wrong:?}");
    // Without an engine the cluster's are pruned all the same.
    drop(engine);
    let all = server.ask("POST", "/networks/prune", "").await;
    assert_eq!(all.json(), json!({"NetworksDeleted": ["kept"]}));
}

/// A service in networks.
fn service(name: &str, networks: &Value) -> String {
    let task = json!({"ContainerSpec": {"Image": "nginx"}, "Networks": networks});
    json!({"Name": name, "Mode": {"Replicated": {"Replicas": 2}}, "TaskTemplate": task,
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}})
    .to_string()
}

#[tokio::test]
async fn services_and_tasks_show_their_places_in_networks() {
    let server = Server::start(&Fake::manager(), None).await;
    let id = id_of(&server, &json!({"Name": "back", "Driver": "overlay", "Labels": {"a": "b"}})).await;
    let web = service("web", &json!([{"Target": "back", "Aliases": ["www"]}]));
    assert_eq!(server.ask("POST", "/services/create", &web).await.status, 201);
    let shown = server.ask("GET", "/services/web", "").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": id, "Aliases": ["www"]}]));
    assert_eq!(shown["Endpoint"]["VirtualIPs"], json!([{"NetworkID": id, "Addr": "10.128.0.2/20"}]));
    let tasks = server.ask("GET", "/tasks", "").await.json();
    let attachment = &tasks[0]["NetworksAttachments"][0];
    assert_eq!(attachment["Addresses"], json!(["10.128.0.3/20"]));
    let network = &attachment["Network"];
    assert_eq!((&network["ID"], &network["DriverState"]["Name"]), (&json!(id), &json!("overlay")));
    assert_eq!((&network["Spec"]["Name"], &network["Spec"]["Scope"]), (&json!("back"), &json!("swarm")));
    assert_eq!(network["IPAMOptions"]["Configs"][0]["Subnet"], "10.128.0.0/20");

    let verbose = server.ask("GET", "/networks/back?verbose=1", "").await.json();
    let container = &verbose["Containers"]["c0ffee"];
    assert_eq!((&container["IPv4Address"], &container["IPv6Address"]), (&json!("10.128.0.4/20"), &json!("")));
    let web = &verbose["Services"]["web"];
    assert_eq!((&web["VIP"], &web["Ports"]), (&json!("10.128.0.2"), &json!(["Target: 80, Publish: 8080"])));
    assert_eq!(web["Tasks"].as_array().unwrap().len(), 2);
    assert_eq!(web["Tasks"][0]["EndpointIP"], "10.128.0.3");
    assert_eq!(web["Tasks"][0]["Info"], json!({"Host IP": "10.1.1.1"}));
    assert_eq!(web["Tasks"][0]["Name"], format!("web.1.{}", tasks[0]["ID"].as_str().unwrap()));
    assert!(server.ask("GET", "/networks/back", "").await.json().get("Services").is_none());
    let unused = format!("/networks?filters={}", filters(r#"{"dangling":["true"]}"#));
    assert_eq!(server.ask("GET", &unused, "").await.json(), json!([]));

    let busy = server.ask("DELETE", "/networks/back", "").await;
    assert_eq!((busy.status, busy.message().as_str()), (403, "network 'back' is in use by service 'web'"));
    assert_eq!(server.ask("DELETE", "/services/web", "").await.status, 200);
    assert_eq!(server.ask("DELETE", "/networks/back", "").await.status, 204);
}

#[tokio::test]
async fn networks_of_services_are_found_by_any_name_and_missing_ones_are_told() {
    let server = Server::start(&Fake::manager(), None).await;
    let id = id_of(&server, &json!({"Name": "back", "Driver": "overlay"})).await;
    let missing = server.ask("POST", "/services/create", &service("web", &json!([{"Target": "none"}]))).await;
    assert_eq!((missing.status, missing.message().as_str()), (404, "network none not found"));
    let twice = service("web", &json!([{"Target": "back"}, {"Target": id}]));
    let twice = server.ask("POST", "/services/create", &twice).await;
    assert!(twice.status == 400 && twice.message().contains("Networks.1.Target"), "{twice:?}");
    let alias = service("web", &json!([{"Target": "back", "Aliases": ["a b"]}]));
    let alias = server.ask("POST", "/services/create", &alias).await;
    assert!(alias.status == 400 && alias.message().contains("Networks.0.Aliases.0"), "{alias:?}");
    let by_prefix = service("web", &json!([{"Target": id[..9]}]));
    assert_eq!(server.ask("POST", "/services/create", &by_prefix).await.status, 201);
    // The older place of the same, and another way to be found.
    let mut web = server.ask("GET", "/services/web", "").await.json();
    let path = format!("/services/web/update?version={}", web["Version"]["Index"]);
    web["Spec"]["TaskTemplate"].as_object_mut().unwrap().remove("Networks");
    web["Spec"]["Networks"] = json!([{"Target": "back"}]);
    web["Spec"]["EndpointSpec"] = json!({"Mode": "dnsrr"});
    assert_eq!(server.ask("POST", &path, &web["Spec"].to_string()).await.status, 200);
    let shown = server.ask("GET", "/services/web", "").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": id}]));
    assert_eq!(shown["Spec"]["EndpointSpec"]["Mode"], "dnsrr");
    assert!(shown["Endpoint"].get("VirtualIPs").is_none(), "{shown}");
}

#[tokio::test]
async fn names_tell_programs_outside_how_services_are_reached() {
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    let id = id_of(&server, &json!({"Name": "back", "Driver": "overlay"})).await;
    let web = service("web", &json!([{"Target": "back", "Aliases": ["www"]}]));
    assert_eq!(server.ask("POST", "/services/create", &web).await.status, 201);
    let alone = r#"{"Name":"alone","TaskTemplate":{"ContainerSpec":{"Image":"nginx"}}}"#;
    assert_eq!(server.ask("POST", "/services/create", alone).await.status, 201);
    let names = server.ask("GET", "/shoal/v1/names", "").await.json();
    assert_eq!(names.as_array().unwrap().len(), 1);
    let state = fake.now();
    let (own, web) = (&names[0], state.service_named("web").unwrap());
    assert_eq!((&own["ID"], &own["Name"]), (&json!(web.id.to_string()), &json!("web")));
    let network = json!([{"ID": id, "Name": "back", "VirtualAddresses": ["10.128.0.2"], "Aliases": ["www"]}]);
    assert_eq!(own["Networks"], network);
    assert_eq!(
        (&own["Ports"][0]["PublishedPort"], &own["Ports"][0]["TargetPort"]),
        (&json!(8080), &json!(80))
    );
    let first = state.tasks_of_service(web.id).next().unwrap();
    let task = json!({"ID": first.id.to_string(), "Name": format!("web.1.{}", first.id), "NodeID": OWN.to_string(),
        "Node": "host1", "Addresses": ["10.128.0.3"], "Ports": [], "State": "running", "Health": "healthy",
        "TakesTraffic": true});
    assert_eq!((own["Tasks"].as_array().unwrap().len(), &own["Tasks"][0]), (2, &task));

    fake.forget_reconciling();
    fake.apply(vec![Write::TaskDesired(first.id, TaskState::Shutdown)]);
    let names = server.ask("GET", "/shoal/v1/names?service=web", "").await.json();
    let takes = |at: usize| names[0]["Tasks"][at]["TakesTraffic"].clone();
    assert_eq!((takes(0), takes(1)), (json!(false), json!(true)));
    assert_eq!(names[0]["Tasks"][0]["Health"], "stopping");
    assert_eq!(server.ask("GET", "/shoal/v1/names?service=alone", "").await.json(), json!([]));
    assert_eq!(server.ask("GET", "/shoal/v1/names?service=none", "").await.status, 404);
}

#[tokio::test]
async fn names_tell_ports_that_tasks_have_on_their_hosts() {
    let server = Server::start(&Fake::manager(), None).await;
    let spec = json!({"Name": "dns", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}, "EndpointSpec": {"Ports": [
        {"TargetPort": 53, "PublishedPort": 5353, "Protocol": "udp", "PublishMode": "host"}]}});
    assert_eq!(server.ask("POST", "/services/create", &spec.to_string()).await.status, 201);
    let names = server.ask("GET", "/shoal/v1/names", "").await.json();
    let task = &names[0]["Tasks"][0];
    assert_eq!((&task["Node"], &task["TakesTraffic"]), (&json!("host1"), &json!(true)), "{names}");
    let port = json!([{"Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"}]);
    assert_eq!(task["Ports"], port);
}

#[tokio::test]
async fn ports_are_told_of_all_services_or_of_one() {
    let server = Server::start(&Fake::manager(), None).await;
    for (name, published) in [("web", 8080), ("api", 8081)] {
        let spec = json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}},
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": published}]}});
        assert_eq!(server.ask("POST", "/services/create", &spec.to_string()).await.status, 201);
    }
    for (query, count) in [("", 2), ("?service=", 2), ("?service=web", 1), ("?service=we", 0)] {
        let found = server.ask("GET", &format!("/shoal/v1/ports{query}"), "").await.json();
        assert_eq!(found["Ports"].as_array().unwrap().len(), count, "{query}: {found}");
    }
    let found = server.ask("GET", "/shoal/v1/ports?service=api", "").await.json();
    assert_eq!(found["Ports"][0]["PublishedPort"], 8081);
}
