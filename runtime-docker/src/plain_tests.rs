use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_core::model::{NetworkId, NetworkInfo, Pool};

use super::*;

fn place(id: u128, name: &str, addresses: &[&str]) -> TaskNetwork {
    let pool = |subnet: &str| Pool::new(subnet.parse().unwrap(), None).unwrap();
    let network = NetworkInfo {
        id: NetworkId::from_u128(id),
        name: name.into(),
        internal: false,
        attachable: true,
        pools: vec![pool(&format!("10.{id}.0.0/16")), pool("fd00::/64")],
    };
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    TaskNetwork { network: Arc::new(network), aliases: Vec::new(), addresses }
}

fn attachment(networks: Vec<TaskNetwork>) -> Attachment {
    Attachment { id: AttachmentId::from_u128(7), networks, ..Attachment::default() }
}

fn fields(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

#[test]
fn networks_are_found_wherever_a_request_names_them() {
    let names = |request: Value| wanted(&request).into_iter().map(|one| one.network).collect::<Vec<_>>();
    for mode in ["", "default", "bridge", "host", "none", "container:abc"] {
        assert_eq!(names(json!({"HostConfig": {"NetworkMode": mode}})), [""; 0], "{mode}");
    }
    assert_eq!(names(json!({})), [""; 0]);
    assert_eq!(names(json!({"HostConfig": null, "NetworkingConfig": {"EndpointsConfig": null}})), [""; 0]);
    assert_eq!(names(json!([1])), [""; 0]);
    let request = json!({"hostconfig": {"networkMode": "back"},
        "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["a", "b"]}, "more": null, "bridge": {}}}});
    let found = wanted(&request);
    assert_eq!(found[0], Wanted { network: "back".into(), aliases: vec!["a".into(), "b".into()] });
    assert_eq!(found[1], Wanted { network: "more".into(), aliases: vec![] });
    assert_eq!(found.len(), 2);
}

#[test]
fn a_hostname_that_a_user_chose_is_a_name_in_each_network() {
    let request = json!({"Hostname": "box", "HostConfig": {"NetworkMode": "back"},
        "NetworkingConfig": {"EndpointsConfig": {"more": {"Aliases": ["box"]}}}});
    let aliases: Vec<Vec<String>> = wanted(&request).into_iter().map(|one| one.aliases).collect();
    assert_eq!(aliases, [["box"], ["box"]]);
    let described = |name: &str| hostname(&json!({"Id": "c0ffee12", "Config": {"Hostname": name}}));
    assert_eq!((described("box"), described("c0ffee"), described("")), (Some("box".into()), None, None));
}

#[test]
fn a_container_is_told_what_a_task_is_told() {
    let id = NetworkId::from_u128(1).to_string();
    let request = json!({"Image": "x", "labels": {"a": "b"},
        "HostConfig": {"networkmode": id, "Dns": ["9.9.9.9"]},
        "NetworkingConfig": {"EndpointsConfig": {id.clone(): {"Aliases": ["www"]}}}});
    let attachment =
        attachment(vec![place(1, "back", &["10.1.0.3", "fd00::3"]), place(2, "more", &["10.2.0.4"])]);
    let mut request = fields(request);
    enter_new(&mut request, &attachment).unwrap();
    let expected = json!({"Image": "x",
        "labels": {"a": "b", "shoal.attachment": AttachmentId::from_u128(7).to_string()},
        "HostConfig": {"networkmode": "back", "Dns": ["10.1.0.1", "10.2.0.1", "9.9.9.9"]},
        "NetworkingConfig": {"EndpointsConfig": {
            "back": {"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.1.0.3", "IPv6Address": "fd00::3"}},
            "more": {"IPAMConfig": {"IPv4Address": "10.2.0.4"}}}}});
    assert_eq!(Value::Object(request), expected);
}

#[test]
fn an_address_that_a_user_asks_for_is_refused_by_name() {
    let back = place(1, "back", &["10.1.0.3"]);
    for (asked, named) in [
        (json!({"IPAMConfig": {"IPv4Address": "10.1.0.9"}}), "IPAMConfig.IPv4Address"),
        (json!({"ipamconfig": {"ipv6address": "fd00::9"}}), "IPAMConfig.IPv6Address"),
        (json!({"IPAMConfig": {"LinkLocalIPs": ["fe80::1"]}}), "IPAMConfig.LinkLocalIPs"),
    ] {
        let mut request = fields(json!({"NetworkingConfig": {"EndpointsConfig": {"back": asked}}}));
        let refused = enter_new(&mut request, &attachment(vec![back.clone()])).unwrap_err();
        assert!(refused.contains(named) && refused.contains("'back'"), "{refused}");
    }
    let says_nothing = json!({"IPAMConfig": {"IPv4Address": "", "LinkLocalIPs": []}});
    assert_eq!(enter(says_nothing, &back).unwrap(), json!({"IPAMConfig": {"IPv4Address": "10.1.0.3"}}));
}

#[test]
fn containers_are_read_from_the_engines_list_without_tasks() {
    let own = AttachmentId::from_u128(7);
    let summary = |text: Value| of_summary(serde_json::from_value(text).unwrap());
    let found = summary(json!({"Id": "c0ffee", "Names": ["/other/box", "/box"],
        "Labels": {"shoal.attachment": own.to_string()}, "NetworkSettings": {"Networks": {"back": {}}}}));
    let expected = PlainContainer {
        id: "c0ffee".into(),
        name: "box".into(),
        attachment: Some(own),
        networks: BTreeSet::from(["back".to_owned()]),
    };
    assert_eq!(found, Some(expected));
    assert_eq!(summary(json!({"Id": "c", "Labels": {"com.docker.swarm.task.id": "t"}})), None);
    assert_eq!(summary(json!({"Id": "c"})).map(|found| found.id), Some("c".into()));
}

#[test]
fn an_event_names_its_container() {
    let of = |text: Value| subject(serde_json::from_value(text).unwrap());
    assert_eq!(
        of(json!({"Type": "container", "Actor": {"ID": "c", "Attributes": {"name": "box"}}})),
        Some("c".into())
    );
    let left =
        json!({"Type": "network", "Actor": {"ID": "n", "Attributes": {"container": "c", "name": "back"}}});
    assert_eq!(of(left), Some("c".into()));
    // A label of the container may have any name.
    let labelled = json!({"Type": "container", "Actor": {"ID": "c", "Attributes": {"container": "x"}}});
    assert_eq!(of(labelled), Some("c".into()));
    assert_eq!(of(json!({"Type": "container"})), None);
}
