use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::check::check;
use crate::model::*;
use crate::store::{ApplyError, Command, ObjectId, State, Write};

const HERE: NodeId = NodeId::from_u128(1);
const THERE: NodeId = NodeId::from_u128(2);

fn network(id: u128, name: &str, attachable: bool) -> Write {
    let pools = vec![Pool::new(format!("10.9.{id}.0/29").parse().unwrap(), None).unwrap()];
    let spec = NetworkSpec { name: name.into(), attachable, pools, ..NetworkSpec::default() };
    Write::NetworkCreate(Box::new(Network { id: NetworkId::from_u128(id), spec, ..Network::default() }))
}

fn state() -> State {
    let node = |id| Write::NodeCreate(Box::new(Node { id, ..Node::default() }));
    let mut state = State::default();
    let writes = vec![
        node(HERE),
        node(THERE),
        network(1, "open", true),
        network(2, "more", true),
        network(3, "shut", false),
    ];
    apply(&mut state, writes).unwrap();
    state
}

fn apply(state: &mut State, writes: Vec<Write>) -> Result<(), ApplyError> {
    state.apply(state.applied() + 1, 1, Command { writes, ..Command::default() })?;
    assert_eq!(check(state), []);
    Ok(())
}

fn id(id: u128) -> AttachmentId {
    AttachmentId::from_u128(id)
}

fn names(container: &str, name: &str) -> (String, String) {
    (container.to_owned(), name.to_owned())
}

fn enter(number: u128, container: &str, networks: &[&str]) -> Ask {
    let wanted = |name: &&str| Wanted { network: (*name).to_owned(), aliases: vec!["alias".into()] };
    Ask::Enter {
        id: id(number),
        container: names(container, container),
        networks: networks.iter().map(wanted).collect(),
    }
}

/// Ask, and commit what comes of it.
fn ask(state: &mut State, node: NodeId, ask: &Ask) -> Result<Vec<Arc<Attachment>>, AskError> {
    let mut plan = plan(state, node, ask)?;
    if !plan.writes.is_empty() {
        apply(state, std::mem::take(&mut plan.writes))?;
    }
    Ok(plan.answer(state))
}

fn addresses(attachment: &Attachment) -> Vec<String> {
    attachment.networks.iter().flat_map(|place| place.addresses.iter().map(ToString::to_string)).collect()
}

#[test]
fn a_container_gets_an_address_in_each_network_and_keeps_what_it_has() {
    let mut state = state();
    let told = ask(&mut state, HERE, &enter(7, "", &["open", "nobodys", "bridge"])).unwrap();
    assert_eq!(addresses(&told[0]), ["10.9.1.2"]);
    // Asked again, as after an answer that was lost, it is the same.
    let told = ask(&mut state, HERE, &enter(7, "", &["open"])).unwrap();
    assert_eq!(addresses(&told[0]), ["10.9.1.2"]);
    ask(&mut state, HERE, &Ask::Made { id: id(7), container: names("c0ffee", "box") }).unwrap();
    // A further network for the same container, under another id.
    let more = Ask::Enter {
        id: id(8),
        container: names("c0ffee", "box"),
        networks: vec![Wanted { network: NetworkId::from_u128(2).to_string(), aliases: vec![] }],
    };
    let told = ask(&mut state, HERE, &more).unwrap();
    assert_eq!((told[0].id, addresses(&told[0])), (id(7), vec!["10.9.1.2".to_owned(), "10.9.2.2".into()]));
    assert_eq!(ask(&mut state, HERE, &Ask::List).unwrap().len(), 1);
    assert_eq!(ask(&mut state, THERE, &Ask::List).unwrap(), []);
    let leave = |network: Option<u128>| Ask::Leave { id: id(7), network: network.map(NetworkId::from_u128) };
    ask(&mut state, HERE, &leave(Some(1))).unwrap();
    assert_eq!(addresses(state.attachment(id(7)).unwrap()), ["10.9.2.2"]);
    assert_eq!(plan(&state, HERE, &leave(Some(1))).unwrap().writes, []);
    ask(&mut state, HERE, &leave(None)).unwrap();
    assert_eq!(state.attachments().len(), 0);
    assert_eq!(plan(&state, HERE, &leave(None)).unwrap().writes, []);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let mut state = state();
    let refused = ask(&mut state, HERE, &enter(7, "", &["shut"])).unwrap_err().to_string();
    assert!(refused.contains("'shut'") && refused.contains("--attachable"), "{refused}");
    let apply_shut = Write::Attach {
        id: id(7),
        node: HERE,
        networks: vec![NetworkAttachment { network: NetworkId::from_u128(3), aliases: vec![] }],
    };
    assert_eq!(apply(&mut state, vec![apply_shut]), Err(ApplyError::NotAttachable("shut".into())));
    // Not in a network of the cluster at all: that is for the engine.
    assert_eq!(ask(&mut state, HERE, &enter(7, "", &["bridge"])).unwrap(), []);
    for number in 1..=5 {
        ask(&mut state, HERE, &enter(number, "", &["open"])).unwrap();
    }
    let full = ask(&mut state, HERE, &enter(6, "", &["open"])).unwrap_err();
    assert_eq!(full, AskError::Refused(ApplyError::NoAddressLeft("open".into())));
    let missing = Err(ApplyError::NotFound(ObjectId::Attachment(id(9))).into());
    assert_eq!(ask(&mut state, HERE, &Ask::Made { id: id(9), container: names("c", "c") }), missing);
    let long = "x".repeat(256);
    assert!(matches!(
        ask(&mut state, HERE, &Ask::Made { id: id(1), container: names("c", &long) }),
        Err(AskError::TooMuch(_))
    ));
}

#[test]
fn a_node_speaks_for_its_own_containers_alone() {
    let mut state = state();
    ask(&mut state, HERE, &enter(7, "", &["open"])).unwrap();
    let foreign = Err(AskError::Refused(ApplyError::NotFound(ObjectId::Attachment(id(7)))));
    for asked in [
        enter(7, "", &["more"]),
        Ask::Made { id: id(7), container: names("c", "c") },
        Ask::Leave { id: id(7), network: None },
    ] {
        assert_eq!(ask(&mut state, THERE, &asked), foreign, "{asked:?}");
    }
    let stranger = NodeId::from_u128(77);
    assert_eq!(
        ask(&mut state, stranger, &enter(8, "", &["open"])),
        Err(ApplyError::NotFound(ObjectId::Node(stranger)).into())
    );
}

#[test]
fn a_network_with_a_container_stays_and_a_removed_node_gives_its_addresses_back() {
    let mut state = state();
    ask(&mut state, HERE, &enter(7, "box", &["open"])).unwrap();
    let remove = || vec![Write::NetworkRemove(NetworkId::from_u128(1))];
    let kept = apply(&mut state, remove()).unwrap_err().to_string();
    assert!(kept.starts_with("network 'open' is in use by container 'box' on node"), "{kept}");
    apply(&mut state, vec![Write::NodeRemove(HERE)]).unwrap();
    assert_eq!(state.attachments().len(), 0);
    let late = vec![Write::Attach { id: id(8), node: HERE, networks: Vec::new() }];
    assert_eq!(apply(&mut state, late), Err(ApplyError::NodeRemoved(HERE)));
    apply(&mut state, remove()).unwrap();
}

fn container(container: &str, name: &str, label: Option<u128>, networks: &[&str]) -> PlainContainer {
    PlainContainer {
        id: container.into(),
        name: name.into(),
        attachment: label.map(id),
        networks: networks.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_container_that_was_never_made_is_gone_after_a_while_and_one_that_was_removed_at_once() {
    let mut state = state();
    let mut keeper = Keeper::default();
    let places = ask(&mut state, HERE, &enter(7, "", &["open"])).unwrap();
    assert_eq!(keeper.look(&places, &[], seconds(100)), []);
    assert_eq!(keeper.next(seconds(110)), Some(seconds(50)));
    assert_eq!(keeper.look(&places, &[], seconds(159)), []);
    assert_eq!(keeper.look(&places, &[], seconds(160)), [Step::Gone(id(7))]);
    // It was made meanwhile, and the manager not told.
    let there = [container("c0ffee", "box", Some(7), &["open"])];
    let made = Step::Made(id(7), names("c0ffee", "box"));
    assert_eq!(keeper.look(&places, &there, seconds(161)), [made]);
    assert_eq!(keeper.next(seconds(161)), None);
    let places = ask(&mut state, HERE, &Ask::Made { id: id(7), container: names("c0ffee", "box") }).unwrap();
    assert_eq!(keeper.look(&places, &there, seconds(162)), []);
    let renamed = [container("c0ffee", "crate", Some(7), &["open"])];
    assert_eq!(keeper.look(&places, &renamed, seconds(163)), [Step::Made(id(7), names("c0ffee", "crate"))]);
    // Another one that bears the same label is not it.
    let forged = [container("f0rged", "box", Some(7), &["open"])];
    assert_eq!(keeper.look(&places, &forged, seconds(164)), [Step::Gone(id(7))]);
}

#[test]
fn a_network_that_a_container_left_is_given_back_after_a_while() {
    let mut state = state();
    let mut keeper = Keeper::default();
    let places = ask(&mut state, HERE, &enter(7, "c0ffee", &["open", "more"])).unwrap();
    let there = [container("c0ffee", "c0ffee", None, &["open", "bridge"])];
    assert_eq!(keeper.look(&places, &there, seconds(0)), []);
    assert_eq!(keeper.look(&places, &there, seconds(60)), [Step::Left(id(7), NetworkId::from_u128(2))]);
    let back = [container("c0ffee", "c0ffee", None, &["open", "more"])];
    assert_eq!(keeper.look(&places, &back, seconds(61)), []);
    assert_eq!(keeper.look(&places, &there, seconds(62)), []);
}

/// A service in the network `open`, which is known there as `www`, too.
fn serve(state: &mut State, name: &str) {
    let service = Service::new(ServiceId::from_u128(9), spec(name, 1));
    apply(state, vec![Write::ServiceCreate(Box::new(service))]).unwrap();
}

fn spec(name: &str, network: u128) -> ServiceSpec {
    let networks =
        vec![NetworkAttachment { network: NetworkId::from_u128(network), aliases: vec!["www".into()] }];
    let task = TaskSpec { networks, ..TaskSpec::default() };
    ServiceSpec {
        name: name.into(),
        labels: Default::default(),
        mode: ServiceMode::Replicated { replicas: 0 },
        task: Arc::new(task),
        update: None,
        rollback: None,
        endpoint: EndpointSpec::default(),
    }
}

#[test]
fn a_container_takes_no_name_that_a_service_has_in_its_network() {
    let mut state = state();
    serve(&mut state, "Web");
    let named = |container: &str, name: &str, alias: &str, network: &str| Ask::Enter {
        id: id(7),
        container: names(container, name),
        networks: vec![Wanted { network: network.into(), aliases: vec![alias.into()] }],
    };
    for (name, alias) in
        [("web", ""), ("WEB", ""), ("WWW", "box"), ("box", "www"), ("tasks.web", ""), ("web.open", "")]
    {
        let refused = ask(&mut state, HERE, &named("", name, alias, "open")).unwrap_err();
        let AskError::NameTaken(taken) = &refused else { panic!("{name} {alias}: {refused}") };
        assert_eq!((taken.service.as_str(), taken.network.as_str()), ("Web", "open"), "{name} {alias}");
        assert!(refused.to_string().contains("'Web' in network 'open'"), "{refused}");
    }
    // Elsewhere nobody has these names.
    ask(&mut state, HERE, &named("c0ffee", "web", "www", "more")).unwrap();
    // Neither does it come in, nor is it called so, where a service is.
    assert!(matches!(
        ask(&mut state, HERE, &named("c0ffee", "web", "", "open")),
        Err(AskError::NameTaken(_))
    ));
    ask(&mut state, HERE, &named("c0ffee", "box", "", "open")).unwrap();
    let renamed = ask(&mut state, HERE, &named("c0ffee", "web", "", "open"));
    assert!(matches!(renamed, Err(AskError::NameTaken(_))), "{renamed:?}");
    assert_eq!(state.attachment(id(7)).unwrap().name, "box");
    let renamed = ask(&mut state, HERE, &named("c0ffee", "crate", "", "open")).unwrap();
    assert_eq!((renamed[0].name.as_str(), renamed[0].networks.len()), ("crate", 2));
}

#[test]
fn a_service_comes_under_no_name_that_a_container_has_in_its_network() {
    let mut state = state();
    ask(&mut state, HERE, &enter(7, "web", &["open"])).unwrap();
    let refused = hidden(&state, None, &spec("web", 1)).unwrap();
    assert_eq!((refused.container.as_str(), refused.name.as_str()), ("web", "web"));
    let words = refused.to_string();
    assert!(words.contains("container 'web' on node") && words.contains("network 'open'"), "{words}");
    assert_eq!(hidden(&state, None, &spec("alias", 1)).map(|hidden| hidden.name), Some("alias".into()));
    assert_eq!(hidden(&state, None, &spec("api", 1)), None);
    assert_eq!(hidden(&state, None, &spec("web", 2)), None, "it is not in that network");
    // What is so already does not hold up a change.
    assert_eq!(hidden(&state, Some(&spec("web", 1)), &spec("web", 1)), None);
    assert!(hidden(&state, Some(&spec("web", 2)), &spec("web", 1)).is_some());
}

proptest! {
    /// Whatever is called how: what may enter beside a service is what does not hide it, whichever of them comes first.
    #[test]
    fn both_orders_are_refused_alike(
        service in "[abW]{1,2}", name in "(tasks\\.)?[abw]{1,2}(\\.open)?", alias in "[aBw]{1,2}",
    ) {
        let mut first = state();
        serve(&mut first, &service);
        let enter = Ask::Enter {
            id: id(7),
            container: names("c0ffee", &name),
            networks: vec![Wanted { network: "open".into(), aliases: vec![alias] }],
        };
        let refused = ask(&mut first, HERE, &enter).is_err();
        let mut second = state();
        ask(&mut second, HERE, &enter).unwrap();
        prop_assert_eq!(hidden(&second, None, &spec(&service, 1)).is_some(), refused);
    }

    /// Whatever is asked in whatever order: every address has one owner, and an id never changes its node.
    #[test]
    fn no_question_breaks_the_state(
        asks in prop::collection::vec((0..5u8, 1..6u128, any::<bool>(), 0..4usize), 1..60)
    ) {
        let mut state = state();
        let names_of = ["open", "more", "shut", "bridge"];
        for (kind, number, here, network) in asks {
            let node = if here { HERE } else { THERE };
            let known = state.attachment(id(number)).map(|known| known.node);
            let asked = match kind {
                0 => enter(number, "", &[names_of[network]]),
                1 => enter(number, &format!("c{number}"), &names_of[..network.min(2)]),
                2 => Ask::Made { id: id(number), container: names(&format!("c{number}"), "n") },
                3 => Ask::Leave { id: id(number), network: None },
                _ => Ask::Leave { id: id(number), network: Some(NetworkId::from_u128(network as u128)) },
            };
            // Refusals are fine: `apply` here checks what is written.
            let result = ask(&mut state, node, &asked);
            if known.is_some_and(|known| known != node) && !matches!(asked, Ask::Enter { .. }) {
                prop_assert!(result.is_err());
            }
            if let (Some(before), Some(after)) = (known, state.attachment(id(number))) {
                prop_assert!(before == after.node || result.is_ok());
            }
            let owners: BTreeSet<_> = state.attachments().flat_map(|a| addresses(a)).collect();
            let all: usize = state.attachments().map(|a| addresses(a).len()).sum();
            prop_assert_eq!(owners.len(), all);
        }
    }
}
