//! Runs the fuzz targets on the seed corpus and on mutations of it, the same in every run, within
//! seconds and without libFuzzer.

use std::{fs, path::Path};

/// Mutations of each packet.
const ROUNDS: u64 = 20_000;

/// Mutations of each text, whose parsers are slower.
const TEXT_ROUNDS: u64 = 500;

/// Reproducible random numbers: xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        [
            0,
            1,
            12,
            41,
            63,
            64,
            127,
            128,
            192,
            255,
            self.below(256).to_le_bytes()[0],
            self.below(256).to_le_bytes()[0],
        ][self.below(12)]
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the seeds")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "few seeds in {}", folder.display());
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

fn mutate(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(5) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.insert(at, random.byte()),
            1 => bytes.truncate(at),
            2 => bytes.extend_from_slice(&other[random.below(other.len())..]),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ if at < bytes.len() => bytes[at] = random.byte(),
            _ => {}
        }
    }
    bytes
}

fn run(target: &str, rounds: u64, check: fn(&[u8])) {
    let seeds = seeds(target);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        check(seed);
        for _ in 0..rounds {
            let other = &seeds[random.below(seeds.len())];
            let input = mutate(seed, other, &mut random);
            let outcome = std::panic::catch_unwind(|| check(&input));
            assert!(outcome.is_ok(), "{target} fails for {input:02x?}");
        }
    }
}

#[test]
fn the_query_target_holds_for_mutated_seeds() {
    run("query", ROUNDS, redirector_fuzz::query);
}

#[test]
fn the_reply_target_holds_for_mutated_seeds() {
    run("reply", ROUNDS, redirector_fuzz::reply);
}

#[test]
fn the_config_target_holds_for_mutated_seeds() {
    run("config", TEXT_ROUNDS, redirector_fuzz::config);
}

#[test]
fn the_import_target_holds_for_mutated_seeds() {
    run("import", TEXT_ROUNDS, redirector_fuzz::import);
}

#[test]
fn the_request_target_holds_for_mutated_seeds() {
    run("request", TEXT_ROUNDS, redirector_fuzz::request);
}

#[test]
fn the_resolv_conf_target_holds_for_mutated_seeds() {
    run("resolv_conf", TEXT_ROUNDS, redirector_fuzz::resolv_conf);
}

#[test]
fn the_hosts_target_holds_for_mutated_seeds() {
    run("hosts", TEXT_ROUNDS, redirector_fuzz::hosts);
}

#[test]
fn the_answer_target_holds_for_mutated_seeds() {
    run("answer", ROUNDS, redirector_fuzz::answer);
}

#[test]
fn the_http_target_holds_for_mutated_seeds() {
    run("http", ROUNDS, redirector_fuzz::http);
}
