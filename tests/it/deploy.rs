//! The deployment files keep their promises.

use replicator::INDEX_MEMORY;

fn file(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("read")
}

/// The compose file's broker lets everybody in, so only this machine may reach it.
#[test]
fn compose_publishes_to_this_machine_alone() {
    let compose = file("docker-compose.yml");
    let published: Vec<&str> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("ports:")).collect();
    assert!(!published.is_empty());
    for ports in published {
        let ports = ports.trim().trim_start_matches('[').trim_end_matches(']').split(',');
        for port in ports {
            assert!(port.trim().starts_with("\"127.0.0.1:"), "{port}");
        }
    }
}

#[test]
fn the_job_has_the_memory_that_its_index_may_take() {
    let manifest = file("deploy/kubernetes-job.yaml");
    let number = |before: &str, after: &str| -> usize {
        let mut found =
            manifest.lines().filter_map(|line| line.trim().strip_prefix(before)?.strip_suffix(after));
        found.next_back().expect("it is there").parse().expect("a number")
    };
    let index = number("- --index-memory=", "");
    assert_eq!(index, INDEX_MEMORY >> 20);
    assert_eq!(number("memory: ", "Mi"), index * 9 / 8 + 512, "as the comment there says");
    assert!(manifest.contains("enableServiceLinks: false"));
}
