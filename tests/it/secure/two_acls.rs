//! Least privilege in two clusters: with these rights each command works; with one less it is refused, and says which
//! right is missing in which cluster.

use rstest::rstest;

use super::crossing::*;
use super::*;

pub(super) const FOLLOW: &str = "fill --follow --allow-unchecked-loop";
const FILLS: &[&str] = &["fill", "fill --scale-out", FOLLOW];
const ALL: &[&str] = &["plan", "gaps", "verify", "fill", "fill --scale-out", "lag", FOLLOW];
const POSITIONS: &[&str] = &["fill", "fill --scale-out", "lag", FOLLOW];
/// Those that end by themselves.
const ENDING: &[&str] = &["plan", "gaps", "verify", "fill", "fill --scale-out", "lag"];

/// Each right, and the commands that need it. Rights on the source are in the source's cluster, all others in the
/// target's. Create is needed only if the ledger is missing, and Alter only if the ledger must grow.
pub(super) const RIGHTS: &[(On, i8, &[&str])] = &[
    (On::Source, READ, ALL),
    (On::Target, READ, ALL),
    (On::Target, WRITE, FILLS),
    (On::Ledger, READ, POSITIONS),
    (On::Ledger, CREATE, FILLS),
    (On::Group, READ, POSITIONS),
    (On::TransactionalId, WRITE, FILLS),
    (On::LongerIds, WRITE, &["fill --scale-out", FOLLOW]),
];

const ADVISED: [(On, i8); 2] = [(On::Source, DESCRIBE_CONFIGS), (On::Target, DESCRIBE_CONFIGS)];

pub(super) fn needed(command: &str) -> Vec<(On, i8)> {
    let rights = RIGHTS.iter().filter(|(.., commands)| commands.contains(&command));
    rights.map(|(on, operation, _)| (*on, *operation)).collect()
}

fn without(rights: &[(On, i8)], missing: (On, i8)) -> Vec<(On, i8)> {
    rights.iter().filter(|right| **right != missing).copied().collect()
}

pub(super) fn arguments(command: &str) -> Vec<&str> {
    let mut arguments: Vec<&str> = command.split(' ').filter(|word| *word != "fill").collect();
    if command == FOLLOW {
        arguments.extend(["--window", "2021-04-14T11:00Z/"]);
    } else if !["gaps", "lag"].contains(&command) {
        arguments.extend(["--window", "11:00-13:00", "--date", "2021-04-14"]);
    }
    if command != "lag" {
        arguments.extend(["--patience", "20"]);
    }
    arguments.extend(["--output", "json"]);
    arguments
}

/// The end of the sentence about a right that is missing.
fn sentence(crossing: &Crossing, (on, operation): (On, i8)) -> String {
    let (operation, name) = (word(operation), crossing.named(on));
    match on {
        On::Source | On::Target | On::Ledger if operation == "Create" => {
            format!("grant it Create on topic {name}")
        }
        On::Source | On::Target | On::Ledger => format!("grant this principal {operation} on topic {name}"),
        On::Group => format!("grant this principal Read on the group {name}"),
        On::TransactionalId | On::LongerIds => {
            format!("grant this principal Write on the transactional id {name}")
        }
    }
}

pub(super) fn place_of(crossing: &Crossing, person: &Person, on: On) -> String {
    match on {
        On::Source => place("source", &crossing.to_source(person)),
        _ => place("target", &crossing.to_target(person)),
    }
}

/// Runs `command` for a new person with these rights. Asserts that it is refused with a sentence about `missing`, and
/// that it writes nothing.
fn refused(crossing: &Crossing, command: &str, rights: &[(On, i8)], missing: (On, i8)) {
    let person = crossing.person();
    crossing.grant(&person, rights.iter().copied());
    let before = (crossing.source_state(), crossing.target_ends());
    let output = crossing.run_for(&person, &arguments(command));
    let text = stderr(&output);
    assert_eq!(code(&output), 3, "{command} without {missing:?}: {text}");
    assert_eq!(receipt(&output)["error"]["reason"], "no-permission", "{text}");
    let (place, sentence) = (place_of(crossing, &person, missing.0), sentence(crossing, missing));
    let is_told = text.lines().any(|line| line.contains(&place) && line.contains(&sentence));
    assert!(is_told, "{command} without {missing:?} says neither `{place}` nor `{sentence}`: {text}");
    let refusals = text.matches("grant this principal").count() + text.matches("grant it").count();
    let advised = text.matches("grant it DescribeConfigs").count();
    assert_eq!(refusals - advised, 1, "only this right is missing: {text}");
    assert!((crossing.source_state(), crossing.target_ends()) == before, "nothing is written");
}

pub(super) fn refused_without_each(crossing: &Crossing, command: &str) {
    let needed = needed(command);
    for missing in &needed {
        if *missing == (On::Ledger, CREATE) && to().topics().contains(&crossing.ledger()) {
            to().delete(&crossing.ledger());
        }
        refused(crossing, command, &without(&needed, *missing), *missing);
    }
}

#[rstest]
#[case::plan("plan")]
#[case::gaps("gaps")]
#[case::verify("verify")]
#[case::fill("fill")]
#[case::scale_out("fill --scale-out")]
fn each_right_is_needed_and_no_other(#[case] command: &str) {
    let crossing = Crossing::new();
    let needed = needed(command);
    refused_without_each(&crossing, command);
    let person = crossing.person();
    crossing.grant(&person, needed);
    let before = crossing.source_state();
    let output = crossing.run_for(&person, &arguments(command));
    // The window is not filled yet.
    let wanted = if command == "verify" { 4 } else { 0 };
    assert_eq!(code(&output), wanted, "{command}: {}", stderr(&output));
    if FILLS.contains(&command) {
        assert_eq!(receipt(&output)["written"], window_of(&records()).len());
        // The ledger is there now, so Create is no longer needed.
        let next = crossing.person();
        crossing.grant(&next, without(&super::two_acls::needed(command), (On::Ledger, CREATE)));
        let again = crossing.run_for(&next, &arguments(command));
        assert_eq!(code(&again), 0, "{}", stderr(&again));
        assert_eq!(receipt(&again)["written"], 0);
    }
    let after = crossing.source_state();
    assert!(after == before && after.1 == [crossing.source.clone()], "in the source's cluster: {after:?}");
    assert!(after.2.is_empty(), "in the source's cluster: {after:?}");
}

/// A principal that only watches needs no more than to see the target, the ledger and the group.
#[test]
fn lag_needs_each_right_but_reads_only_the_source() {
    let crossing = Crossing::new();
    let filler = crossing.person();
    crossing.grant(&filler, needed("fill"));
    let output = crossing.run_for(&filler, &arguments("fill"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let needed = needed("lag");
    for missing in &needed {
        refused(&crossing, "lag", &without(&needed, *missing), *missing);
    }
    let seen = needed.iter().map(|(on, _)| (*on, if *on == On::Source { READ } else { DESCRIBE }));
    for rights in [needed.clone(), seen.collect()] {
        let person = crossing.person();
        crossing.grant(&person, rights);
        let output = crossing.run_for(&person, &arguments("lag"));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(receipt(&output)["lag"], 0, "{}", stderr(&output));
    }
}

/// Without the right to see the group, `verify` compares as the job says. It says so if this may be wrong.
#[test]
fn a_verify_without_the_group_says_what_it_does_not_know() {
    let crossing = Crossing::new();
    let (blind, seeing) = (crossing.person(), crossing.person());
    crossing.grant(&blind, needed("verify"));
    crossing.grant(&seeing, needed("verify").into_iter().chain([(On::Ledger, READ), (On::Group, READ)]));
    let warnings = |person: &Person| {
        let output = crossing.run_for(person, &arguments("verify"));
        (code(&output), receipt(&output)["warnings"].to_string())
    };
    let (code_of_blind, told) = warnings(&blind);
    let wanted = format!("grant this principal Read on topic {}", crossing.ledger());
    assert!(code_of_blind == 4 && told.contains(&wanted) && told.contains("--identity key"), "{told}");
    assert_eq!(warnings(&seeing), (4, "[]".to_owned()));
    let filler = crossing.person();
    crossing.grant(&filler, needed("fill"));
    assert_eq!(code(&crossing.run_for(&filler, &arguments("fill"))), 0);
    assert_eq!(warnings(&blind), (0, "[]".to_owned()), "here it does not matter");
}

/// The broker itself looks at the member's topics (KIP-848).
#[test]
fn the_newer_group_protocol_needs_no_more() {
    let crossing = Crossing::new();
    let person = crossing.person();
    crossing.grant(&person, needed("fill --scale-out"));
    let options = ["-X", "target.group.protocol=consumer"];
    let output = crossing.run_for(&person, &[&arguments("fill --scale-out")[..], &options].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(receipt(&output)["written"], window_of(&records()).len());
}

/// The guide's table has these rights and no others.
#[test]
fn the_guide_has_these_rights() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide.md")).expect("read");
    let clause = |(on, operation): (On, i8)| {
        let what = match on {
            On::Source => "the source",
            On::Target => "the target",
            On::Ledger => "the ledger",
            On::Group => "the group",
            On::TransactionalId => "the transactional id",
            On::LongerIds => "the ids that begin with it and `/`",
        };
        format!("{} on {what}", word(operation))
    };
    let mut wanted = vec!["| command | in the source's cluster | in the target's cluster |".to_owned()];
    wanted.push("|---|---|---|".to_owned());
    for (commands, one) in [
        ("`plan`, `gaps`, `verify`", "plan"),
        ("`lag`", "lag"),
        ("fill", "fill"),
        ("fill with `--scale-out`, `--follow`", "fill --scale-out"),
    ] {
        let (source, target): (Vec<_>, Vec<_>) =
            needed(one).into_iter().partition(|(on, _)| *on == On::Source);
        let cell = |rights: Vec<(On, i8)>| rights.into_iter().map(clause).collect::<Vec<_>>().join(", ");
        wanted.push(format!("| {commands} | {} | {} |", cell(source), cell(target)));
    }
    assert_eq!(needed(FOLLOW), needed("fill --scale-out"));
    assert!(["plan", "gaps", "verify"].iter().all(|look| needed(look) == needed("plan")));
    let wanted = wanted.join("\n");
    assert!(guide.contains(&wanted), "the guide lacks this table:\n{wanted}");
}

/// Describe shows a topic, and no more.
#[rstest]
#[case::on_the_source(On::Source, READ, "fill")]
#[case::on_the_target(On::Target, READ, "fill")]
#[case::on_the_ledger(On::Ledger, READ, "fill")]
#[case::on_the_ledger_of_instances(On::Ledger, READ, "fill --scale-out")]
fn describe_is_not_enough(#[case] on: On, #[case] operation: i8, #[case] command: &str) {
    let crossing = Crossing::new();
    let mut rights = without(&needed(command), (on, operation));
    rights.push((on, DESCRIBE));
    refused(&crossing, command, &rights, (on, operation));
}

#[test]
fn alter_is_needed_only_where_the_ledger_must_grow() {
    let crossing = Crossing::new();
    let needed = without(&needed("fill"), (On::Ledger, CREATE));
    let alter = (On::Ledger, ALTER);
    to().create(&crossing.ledger(), 1, &[]);
    let person = crossing.person();
    crossing.grant(&person, needed.iter().copied());
    let output = crossing.run_for(&person, &arguments("fill"));
    let text = stderr(&output);
    assert_eq!(code(&output), 3, "{text}");
    let told = format!("grant it Alter on topic {}", crossing.ledger());
    assert!(text.contains(&place_of(&crossing, &person, On::Ledger)) && text.contains(&told), "{text}");
    assert_eq!(to().watermarks(&crossing.ledger()).len(), 1);
    crossing.grant(&person, [alter]);
    let output = crossing.run_for(&person, &arguments("fill"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(to().watermarks(&crossing.ledger()).len(), 2);
}

#[test]
fn describe_configs_is_advised_in_both_clusters() {
    let crossing = Crossing::new();
    for advised in [&ADVISED[..], &ADVISED[..1], &ADVISED[1..], &[]] {
        let person = crossing.person();
        crossing.grant(&person, needed("fill").into_iter().chain(advised.iter().copied()));
        let output = crossing.run_for(&person, &arguments("fill"));
        let text = stderr(&output);
        assert_eq!(code(&output), 0, "{text}");
        for right in ADVISED {
            let place = place_of(&crossing, &person, right.0);
            let is_advised =
                text.lines().any(|line| line.contains(&place) && line.contains("DescribeConfigs"));
            assert_eq!(is_advised, !advised.contains(&right), "{right:?}: {text}");
        }
    }
}

/// A plan needs no right to write, but it says what a run would lack.
#[test]
fn a_plan_says_what_a_fill_would_lack() {
    let crossing = Crossing::new();
    let (planner, filler) = (crossing.person(), crossing.person());
    crossing.grant(&planner, needed("plan"));
    crossing.grant(&filler, needed("fill"));
    for (person, is_refused) in [(planner, true), (filler, false)] {
        let output = crossing.run_for(&person, &arguments("plan"));
        let text = stderr(&output);
        assert_eq!(code(&output), 0, "{text}");
        for lacking in [(On::Target, WRITE), (On::Ledger, READ)] {
            let wanted = format!("{}a run would be refused: ", place_of(&crossing, &person, lacking.0));
            let sentence = sentence(&crossing, lacking);
            let is_told = text.lines().any(|line| line.contains(&wanted) && line.ends_with(&sentence));
            assert_eq!(is_told, is_refused, "{wanted}{sentence}: {text}");
        }
        let plan = receipt(&output);
        assert_eq!(plan["consequences"]["group"], crossing.job());
        assert_eq!(plan["consequences"]["ledger"], crossing.ledger());
    }
    assert!(!to().topics().contains(&crossing.ledger()), "a plan creates nothing");
}

/// The source's cluster is somebody else's: a run leaves nothing there, though it may read no more than one topic.
#[test]
fn read_on_one_topic_is_all_in_the_sources_cluster() {
    let crossing = Crossing::same_name();
    let person = crossing.person();
    crossing.grant(&person, needed("fill --scale-out").into_iter().chain([ADVISED[1]]));
    let before = crossing.source_state();
    assert_eq!((before.1.as_slice(), before.2.as_slice()), (&[crossing.source.clone()][..], &[][..]));
    for command in ENDING {
        let output = crossing.run_for(&person, &arguments(command));
        let wanted = if *command == "verify" { 4 } else { 0 };
        assert_eq!(code(&output), wanted, "{command}: {}", stderr(&output));
    }
    let output = crossing.run_for(&person, &arguments("verify"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(crossing.source_state() == before, "{:?}", crossing.source_state());
}

/// No right keeps this principal from writing to the source's cluster.
#[test]
fn a_principal_that_may_do_everything_leaves_nothing_there_either() {
    let crossing = Crossing::new();
    let plain = |side: Side| client(&[("bootstrap.servers", &side.0)]);
    let before = crossing.source_state();
    for command in ENDING {
        let sides = (&plain(from()), &plain(to()));
        let output = crossing.command(sides, Way::OneFile, &arguments(command)).output().expect("runs");
        let wanted = if *command == "verify" { 4 } else { 0 };
        assert_eq!(code(&output), wanted, "{command}: {}", stderr(&output));
        assert!(crossing.source_state() == before, "{command}: {:?}", crossing.source_state());
    }
    assert!(to().groups().contains(&crossing.job()), "a group with offsets is listed");
}

/// Whether the reversed job is at work takes Describe on its ledger and its group in the source's cluster, and no more.
#[test]
fn a_reversed_job_is_seen_by_who_may_describe_it() {
    let crossing = Crossing::new();
    let more: Vec<Record> = placed(day(2000, 1), 2)
        .into_iter()
        .map(|record| Record {
            key: Some([b"more ", record.key.as_deref().unwrap_or_default()].concat()),
            ..record
        })
        .collect();
    to().produce(&crossing.target, &placed(more, 2));
    let plain = |side: Side| client(&[("bootstrap.servers", &side.0)]);
    let reversed = crossing.reversed();
    let slow = [&arguments("fill --scale-out")[..], &["--max-rate", "10/s"]].concat();
    let mut command = reversed.command((&plain(to()), &plain(from())), Way::OneFile, &slow);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let before = from().watermarks(&crossing.source);
    until(|| from().watermarks(&crossing.source) != before);

    let (person, blind) = (crossing.person(), crossing.person());
    crossing.grant(&person, needed("plan"));
    crossing.grant(&blind, needed("plan"));
    crossing.grant_describe_of_reversed(&person);
    let seen = crossing.run_for(&person, &arguments("plan"));
    let unseen = crossing.run_for(&blind, &arguments("plan"));
    child.kill().expect("killed");
    child.wait().expect("ends");
    assert_eq!(code(&seen), 3, "{}", stderr(&seen));
    assert_eq!(receipt(&seen)["error"]["reason"], "reversed-job", "{}", stderr(&seen));
    assert_eq!(code(&unseen), 0, "{}", stderr(&unseen));
    assert!(stderr(&unseen).contains("could not be seen"), "{}", stderr(&unseen));
}

/// The target's principal may not see a topic of the source's name there. Then only the clusters' ids can say whether
/// they are one, and here they are. One cluster with two principals: the source is the ledger.
#[test]
fn one_cluster_whose_second_principal_does_not_see_the_source() {
    let crossing = Crossing::new();
    let records = records();
    from().create(&crossing.target, 2, &[]);
    from().produce(&crossing.target, &outside_of(&records));
    let (reader, writer) = (crossing.person(), crossing.person());
    let sides = (&crossing.to_source(&reader), &crossing.to_source(&writer));
    crossing.grant(&reader, [(On::Source, READ)]);
    let address = Broker::get().plain();
    let job = format!("replicator/{}/{}", crossing.source, crossing.target);
    let allow = |resource: i8, name: &str, operation: i8| {
        let (principal, pattern, permission) = (&writer.principal(), raw::LITERAL, raw::ALLOW);
        raw::control(address, &raw::Entry { principal, resource, name, pattern, operation, permission });
    };
    allow(TOPIC, &crossing.target, READ);
    allow(TOPIC, &crossing.target, WRITE);
    allow(GROUP, &job, READ);
    allow(TRANSACTIONAL_ID, &job, WRITE);
    let run = || crossing.command(sides, Way::OneFile, &arguments("fill")).output().expect("runs");
    let refused = |says: &[&str]| {
        let output = run();
        let text = stderr(&output);
        assert_eq!(code(&output), 3, "{text}");
        assert_eq!(receipt(&output)["error"]["reason"], "no-permission", "{text}");
        assert!(text.contains(&place("target", sides.1)), "{text}");
        assert!(says.iter().all(|says| text.contains(says)), "{says:?}: {text}");
    };
    let grant = |operation: &str| format!("grant this principal {operation} on topic {}", crossing.source);
    refused(&[&grant("Describe"), "whether they are one cluster", "or Read if they are one"]);
    allow(TOPIC, &crossing.source, DESCRIBE);
    refused(&[&grant("Read")]);
    allow(TOPIC, &crossing.source, READ);
    let output = run();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(from().watermarks(&crossing.source).len(), from().committed(&job, &crossing.source).len());
    assert!(!from().topics().contains(&crossing.ledger()));
}
