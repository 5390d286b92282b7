use proptest::prelude::*;

use super::super::tests::{service, task};
use super::super::{Command, Write};
use super::*;
use crate::check::check;
use crate::model::{AttachmentId, Node, ServiceId, TaskId, TaskState, TaskStatus, Timestamp};

fn network(id: u128, name: &str, subnets: &[&str]) -> Network {
    let pools = subnets.iter().map(|subnet| Pool::new(subnet.parse().unwrap(), None).unwrap()).collect();
    let spec = NetworkSpec { name: name.into(), attachable: true, pools, ..NetworkSpec::default() };
    Network { id: NetworkId::from_u128(id), spec, ..Network::default() }
}

fn apply(state: &mut State, writes: Vec<Write>) -> Result<(), ApplyError> {
    state.apply(state.applied() + 1, 1, Command { writes, ..Command::default() })?;
    assert_eq!(check(state), []);
    Ok(())
}

fn in_networks(id: u128, networks: &[u128]) -> Service {
    let mut service = service(id, &format!("s{id}"));
    Arc::make_mut(&mut service.spec.task).networks = wishes(networks);
    service
}

fn wishes(networks: &[u128]) -> Vec<NetworkAttachment> {
    let wish = |id: &u128| NetworkAttachment { network: NetworkId::from_u128(*id), aliases: Vec::new() };
    networks.iter().map(wish).collect()
}

fn place(state: &mut State, id: u128, service: u128) -> Result<Vec<IpAddr>, ApplyError> {
    let mut new = task(id, service);
    let spec = Arc::clone(&state.service(ServiceId::from_u128(service)).unwrap().spec.task);
    let object = Arc::make_mut(&mut new);
    object.spec = spec;
    object.slot = crate::model::Slot::Replica(id.try_into().unwrap());
    let (id, node) = (new.id, NodeId::from_u128(1));
    let assign =
        Write::TaskAssign { id, node, ports: vec![], message: String::new(), at: Timestamp::default() };
    apply(state, vec![Write::TaskCreate(new), assign])?;
    Ok(state.task(id).unwrap().networks.iter().flat_map(|n| n.addresses.clone()).collect())
}

fn end(state: &mut State, id: u128) {
    let status = TaskStatus { state: TaskState::Failed, ..TaskStatus::default() };
    apply(state, vec![Write::TaskStatus(TaskId::from_u128(id), status)]).unwrap();
}

fn with(networks: Vec<Network>) -> State {
    let mut state = State::default();
    let node = Node { id: NodeId::from_u128(1), ..Node::default() };
    apply(&mut state, vec![Write::NodeCreate(Box::new(node))]).unwrap();
    for network in networks {
        apply(&mut state, vec![Write::NetworkCreate(Box::new(network))]).unwrap();
    }
    state
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn ranges_are_chosen_and_never_overlap() {
    let mut state =
        with(vec![network(1, "a", &[]), network(2, "b", &["10.128.16.0/20"]), network(3, "c", &[])]);
    let subnets: Vec<String> = state.networks().map(|n| n.spec.pools[0].subnet.to_string()).collect();
    assert_eq!(subnets, ["10.128.0.0/20", "10.128.16.0/20", "10.128.32.0/20"]);
    let error = apply(&mut state, vec![Write::NetworkCreate(Box::new(network(4, "d", &["10.128.17.0/24"])))]);
    let words = "subnet 10.128.17.0/24 overlaps with network 'b': choose another, or leave it open";
    assert_eq!(error.unwrap_err().to_string(), words);
    let both = network(4, "d", &["10.1.0.0/16", "10.1.2.0/24"]);
    assert!(apply(&mut state, vec![Write::NetworkCreate(Box::new(both))]).is_err());
    let error = apply(&mut state, vec![Write::NetworkCreate(Box::new(network(4, "a", &[])))]);
    assert_eq!(error.unwrap_err(), ApplyError::NetworkNameTaken("a".into()));
}

#[test]
fn a_dual_stack_network_gets_a_range_of_each_family() {
    let mut dual = network(0x1_0007, "d", &[]);
    dual.spec.ipv6 = true;
    let mut state = with(vec![dual]);
    apply(&mut state, vec![Write::ServiceCreate(Box::new(in_networks(1, &[0x1_0007])))]).unwrap();
    assert_eq!(
        state.service(ServiceId::from_u128(1)).unwrap().networks[0].addresses,
        ips(&["10.128.0.2", "fd00:0:0:7::2"])
    );
    assert_eq!(place(&mut state, 1, 1).unwrap(), ips(&["10.128.0.3", "fd00:0:0:7::3"]));
}

#[test]
fn a_range_of_a_nodes_own_address_is_refused() {
    let mut state = with(vec![]);
    let description = crate::model::NodeDescription { addr: "10.128.3.4:7300".into(), ..Default::default() };
    apply(&mut state, vec![Write::NodeDescription(NodeId::from_u128(1), description)]).unwrap();
    apply(&mut state, vec![Write::NetworkCreate(Box::new(network(1, "a", &[])))]).unwrap();
    assert_eq!(state.network_named("a").unwrap().spec.pools[0].subnet.to_string(), "10.128.16.0/20");
    assert!(
        apply(&mut state, vec![Write::NetworkCreate(Box::new(network(2, "b", &["10.128.0.0/16"])))]).is_err()
    );
}

#[test]
fn an_address_rests_as_long_as_can_be_before_it_is_given_again() {
    let mut state = with(vec![network(1, "a", &["10.0.9.0/29"])]);
    apply(&mut state, vec![Write::ServiceCreate(Box::new(in_networks(1, &[1])))]).unwrap();
    assert_eq!(state.service(ServiceId::from_u128(1)).unwrap().networks[0].addresses, ips(&["10.0.9.2"]));
    assert_eq!(place(&mut state, 1, 1).unwrap(), ips(&["10.0.9.3"]));
    end(&mut state, 1);
    assert_eq!(place(&mut state, 2, 1).unwrap(), ips(&["10.0.9.4"]));
    assert_eq!(place(&mut state, 3, 1).unwrap(), ips(&["10.0.9.5"]));
    assert_eq!(place(&mut state, 4, 1).unwrap(), ips(&["10.0.9.6"]));
    assert_eq!(place(&mut state, 5, 1).unwrap(), ips(&["10.0.9.3"]));
    assert_eq!(state.room_in(NetworkId::from_u128(1)).0, 0);
    let full = place(&mut state, 6, 1).unwrap_err();
    assert_eq!(full, ApplyError::NoAddressLeft("a".into()));
    end(&mut state, 3);
    assert_eq!(state.room_in(NetworkId::from_u128(1)).0, 1);
    assert_eq!(place(&mut state, 6, 1).unwrap(), ips(&["10.0.9.5"]));
}

#[test]
fn addresses_come_from_the_part_that_was_named_alone() {
    let mut small = network(1, "a", &[]);
    let pool = |gateway: Option<&str>, part: &str| {
        let pool = Pool::new("10.0.9.0/24".parse().unwrap(), gateway.map(|ip| ip.parse().unwrap())).unwrap();
        pool.within(part.parse().unwrap())
    };
    for (gateway, part, words) in [
        (None, "10.0.10.0/28", "is no part of 10.0.9.0/24"),
        (None, "10.0.8.0/23", "is no part of"),
        (None, "10.0.9.0/31", "has no room"),
        (Some("10.0.9.8"), "10.0.9.8/31", "has no room"),
        (None, "10.0.9.8/32", "has no room"),
        (None, "fd00::/64", "is no part of"),
    ] {
        let why = pool(gateway, part).unwrap_err();
        assert!(why.contains(words), "{part}: {why}");
    }
    small.spec.pools = vec![pool(Some("10.0.9.9"), "10.0.9.8/30").unwrap()];
    let mut state = with(vec![small]);
    apply(&mut state, vec![Write::ServiceCreate(Box::new(in_networks(1, &[1])))]).unwrap();
    assert_eq!(state.service(ServiceId::from_u128(1)).unwrap().networks[0].addresses, ips(&["10.0.9.8"]));
    assert_eq!(state.room_in(NetworkId::from_u128(1)).0, 2);
    assert_eq!(place(&mut state, 1, 1).unwrap(), ips(&["10.0.9.10"]));
    assert_eq!(place(&mut state, 2, 1).unwrap(), ips(&["10.0.9.11"]));
    assert_eq!(
        state.room_in(NetworkId::from_u128(1)),
        (0, "no free address in network 'a' (10.0.9.8/30)".into())
    );
    assert!(place(&mut state, 3, 1).is_err());
    assert!(check(&state).is_empty());
}

/// A cluster whose networks get their ranges from these pools.
fn from_pools(pools: &[&str], size: Option<i64>) -> Write {
    let pools: Vec<String> = pools.iter().map(|pool| (*pool).to_owned()).collect();
    let cluster = crate::model::Cluster {
        meta: Default::default(),
        id: Default::default(),
        spec: crate::model::ClusterSpec {
            address_pools: AddressPools::new(&pools, size).unwrap(),
            ..Default::default()
        },
        root_ca: Default::default(),
        tokens: Default::default(),
    };
    Write::Cluster(Box::new(cluster))
}

#[test]
fn a_network_without_a_range_left_is_refused_until_there_is_room() {
    let mut state = with(vec![]);
    apply(&mut state, vec![from_pools(&["10.50.0.0/28", "10.60.0.0/29"], Some(29))]).unwrap();
    let create = |state: &mut State, id: u128, subnets: &[&str]| {
        let network = network(id, &format!("n{id}"), subnets);
        apply(state, vec![Write::NetworkCreate(Box::new(network))])?;
        Ok(state.network(NetworkId::from_u128(id)).unwrap().spec.pools[0].subnet.to_string())
    };
    for (id, subnet) in [(1, "10.50.0.0/29"), (2, "10.50.0.8/29"), (3, "10.60.0.0/29")] {
        assert_eq!(create(&mut state, id, &[]).as_deref(), Ok(subnet));
    }
    let before = state.clone();
    assert_eq!(create(&mut state, 4, &[]), Err(ApplyError::NoSubnetLeft));
    assert!(state.networks().eq(before.networks()), "a network was left half made");
    assert!(ApplyError::NoSubnetLeft.to_string().contains("name a subnet"));
    // One that is named needs none, be it in no pool at all.
    assert_eq!(create(&mut state, 5, &["10.70.0.0/24"]).as_deref(), Ok("10.70.0.0/24"));
    apply(&mut state, vec![Write::NetworkRemove(NetworkId::from_u128(2))]).unwrap();
    assert_eq!(create(&mut state, 6, &[]).as_deref(), Ok("10.50.0.8/29"));
    assert_eq!(create(&mut state, 7, &[]), Err(ApplyError::NoSubnetLeft));
}

#[test]
fn ranges_come_from_the_clusters_pools() {
    let mut state = with(vec![]);
    apply(&mut state, vec![from_pools(&["172.30.0.0/23", "10.64.0.0/10"], None)]).unwrap();
    let description = crate::model::NodeDescription { addr: "172.30.0.9:7300".into(), ..Default::default() };
    apply(&mut state, vec![Write::NodeDescription(NodeId::from_u128(1), description)]).unwrap();
    let mut create = |id, subnets: &[&str]| {
        let network = network(id, &format!("n{id}"), subnets);
        apply(&mut state, vec![Write::NetworkCreate(Box::new(network))]).unwrap();
        state.network(NetworkId::from_u128(id)).unwrap().spec.pools[0].subnet.to_string()
    };
    // The first has a node's address in it, and half of the second pool is somebody's already.
    assert_eq!(create(1, &["10.64.0.0/11"]), "10.64.0.0/11");
    assert_eq!(create(2, &[]), "172.30.1.0/24");
    assert_eq!(create(3, &["10.96.0.128/25"]), "10.96.0.128/25");
    assert_eq!(create(4, &[]), "10.96.1.0/24");
}

#[test]
fn a_services_virtual_address_stays_with_it() {
    let mut state = with(vec![network(1, "a", &[]), network(2, "b", &[])]);
    apply(&mut state, vec![Write::ServiceCreate(Box::new(in_networks(1, &[1])))]).unwrap();
    let id = ServiceId::from_u128(1);
    let of = |state: &State| -> Vec<IpAddr> {
        state.service(id).unwrap().networks.iter().flat_map(|n| n.addresses.clone()).collect()
    };
    let change = |state: &mut State, change: &dyn Fn(&mut ServiceSpec)| {
        let mut spec = state.service(id).unwrap().spec.clone();
        change(&mut spec);
        apply(state, vec![Write::ServiceSpec(id, spec)])
    };
    change(&mut state, &|spec| Arc::make_mut(&mut spec.task).networks = wishes(&[2, 1])).unwrap();
    assert_eq!(of(&state), ips(&["10.128.16.2", "10.128.0.2"]));
    change(&mut state, &|spec| Arc::make_mut(&mut spec.task).networks = wishes(&[2])).unwrap();
    assert_eq!(of(&state), ips(&["10.128.16.2"]));
    change(&mut state, &|spec| spec.endpoint.mode = EndpointMode::Dnsrr).unwrap();
    assert_eq!(of(&state), ips(&[]));
    let unknown = change(&mut state, &|spec| Arc::make_mut(&mut spec.task).networks = wishes(&[3]));
    assert_eq!(unknown, Err(ApplyError::NoSuchNetwork(NetworkId::from_u128(3))));
}

#[test]
fn a_network_in_use_is_not_removed() {
    let mut state = with(vec![network(1, "a", &[])]);
    apply(&mut state, vec![Write::ServiceCreate(Box::new(in_networks(1, &[1])))]).unwrap();
    place(&mut state, 1, 1).unwrap();
    let remove = || vec![Write::NetworkRemove(NetworkId::from_u128(1))];
    let error = apply(&mut state, remove()).unwrap_err();
    assert_eq!(error.to_string(), "network 'a' is in use by service 's1'");
    apply(&mut state, vec![Write::ServiceRemove(ServiceId::from_u128(1))]).unwrap();
    assert!(apply(&mut state, remove()).unwrap_err().to_string().contains("in use by task web.1."));
    end(&mut state, 1);
    apply(&mut state, remove()).unwrap();
    assert_eq!(
        apply(&mut state, remove()),
        Err(ApplyError::NotFound(super::super::ObjectId::Network(NetworkId::from_u128(1))))
    );
}

#[derive(Debug, Clone)]
enum Act {
    Network(u128, bool),
    Unnetwork(u128),
    Service(u128, Vec<u128>),
    Attach(u128, Vec<u128>, bool),
    Unservice(u128),
    Place(u128, u128),
    End(u128),
    Forget(u128),
    Enter(u128, Vec<u128>),
    Leave(u128, Option<u128>),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let few = || 1..4u128;
    let some = || prop::collection::vec(1..4u128, 0..3);
    let act = prop_oneof![
        (few(), any::<bool>()).prop_map(|(id, small)| Act::Network(id, small)),
        few().prop_map(Act::Unnetwork),
        (few(), some()).prop_map(|(id, networks)| Act::Service(id, networks)),
        (few(), some(), any::<bool>()).prop_map(|(id, networks, vip)| Act::Attach(id, networks, vip)),
        few().prop_map(Act::Unservice),
        (1..20u128, few()).prop_map(|(id, service)| Act::Place(id, service)),
        (1..20u128).prop_map(Act::End),
        (1..20u128).prop_map(Act::Forget),
        (few(), some()).prop_map(|(id, networks)| Act::Enter(id, networks)),
        (few(), prop::option::of(few())).prop_map(|(id, network)| Act::Leave(id, network)),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    /// Pools give out as many ranges as they have room for, no two of them overlap, and what is given back comes again.
    #[test]
    fn pools_are_used_up_and_filled_again(size in 24u8..=29, length in 22u8..=26, back in any::<prop::sample::Index>()) {
        let mut state = with(vec![]);
        let pool = format!("10.50.0.0/{length}");
        apply(&mut state, vec![from_pools(&[&pool], Some(size.max(length).into()))]).unwrap();
        let room = 1usize << (size.max(length) - length);
        let create = |state: &mut State, id: usize| {
            let network = network(id as u128, &format!("n{id}"), &[]);
            apply(state, vec![Write::NetworkCreate(Box::new(network))])
        };
        for id in 1..=room {
            prop_assert_eq!(create(&mut state, id), Ok(()));
        }
        prop_assert_eq!(create(&mut state, room + 1), Err(ApplyError::NoSubnetLeft));
        let left = NetworkId::from_u128(back.index(room) as u128 + 1);
        apply(&mut state, vec![Write::NetworkRemove(left)]).unwrap();
        prop_assert_eq!(create(&mut state, room + 2), Ok(()));
        prop_assert_eq!(create(&mut state, room + 3), Err(ApplyError::NoSubnetLeft));
    }

    #[test]
    fn no_address_is_ever_handed_out_twice(acts in acts()) {
        let mut state = with(vec![]);
        for act in acts {
            // Refusals are fine: whatever is applied has to be right, which `apply` here checks.
            let _ = match act {
                Act::Network(id, small) => {
                    let subnet = format!("10.9.{id}.0/29");
                    let subnets: &[&str] = if small { &[&subnet] } else { &[] };
                    apply(&mut state, vec![Write::NetworkCreate(Box::new(network(id, &format!("n{id}"), subnets)))])
                }
                Act::Unnetwork(id) => apply(&mut state, vec![Write::NetworkRemove(NetworkId::from_u128(id))]),
                Act::Service(id, networks) => {
                    apply(&mut state, vec![Write::ServiceCreate(Box::new(in_networks(id, &networks)))])
                }
                Act::Attach(id, networks, vip) => {
                    let id = ServiceId::from_u128(id);
                    let Some(service) = state.service(id) else { continue };
                    let mut spec = service.spec.clone();
                    Arc::make_mut(&mut spec.task).networks = wishes(&networks);
                    spec.endpoint.mode = if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr };
                    apply(&mut state, vec![Write::ServiceSpec(id, spec)])
                }
                Act::Unservice(id) => apply(&mut state, vec![Write::ServiceRemove(ServiceId::from_u128(id))]),
                Act::Place(_, service) if state.service(ServiceId::from_u128(service)).is_none() => continue,
                Act::Place(id, service) => place(&mut state, id, service).map(drop),
                Act::End(id) => {
                    let status = TaskStatus { state: TaskState::Shutdown, ..TaskStatus::default() };
                    apply(&mut state, vec![Write::TaskStatus(TaskId::from_u128(id), status)])
                }
                Act::Forget(id) => {
                    let ended = state.task(TaskId::from_u128(id)).is_some_and(|task| task.status.state.is_terminal());
                    if !ended { continue }
                    apply(&mut state, vec![Write::TaskRemove(TaskId::from_u128(id))])
                }
                Act::Enter(id, networks) => {
                    let id = AttachmentId::from_u128(id);
                    let networks = wishes(&networks);
                    apply(&mut state, vec![Write::Attach { id, node: NodeId::from_u128(1), networks }])
                }
                Act::Leave(id, network) => {
                    let id = AttachmentId::from_u128(id);
                    apply(&mut state, vec![Write::Detach { id, network: network.map(NetworkId::from_u128) }])
                }
            };
            let expected: usize = state.services().flat_map(|s| &s.networks).map(|n| n.addresses.len()).sum::<usize>()
                + state.tasks().filter(|task| holds(task)).flat_map(|t| &t.networks).map(|n| n.addresses.len()).sum::<usize>()
                + state.attachments().flat_map(|a| &a.networks).map(|n| n.addresses.len()).sum::<usize>();
            prop_assert_eq!(state.addresses.len(), expected);
        }
    }
}
