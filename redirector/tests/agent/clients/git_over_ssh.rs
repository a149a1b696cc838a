//! Git over SSH, with a real SSH server: through the virtual address, and verified.

use testbed::{packages, process::until};

use crate::{
    rig::{Job, LIMIT},
    stage::{ask, assert_cause},
};

const NAME: &str = "git.internal.company.net";
const CONFIG: &str = "\
[[routes]]
source = \"git.internal.company.net\"
destination = \"203.0.113.1\"
ports = [\"22\", \"7999:22\", \"443:22\", \"8022:2222\"]
";

/// A repository with one commit, and an SSH server for root, whose home is the customer's folder.
fn start_server(job: &Job) {
    let customer = job.rig.customer.sandbox();
    let home = customer.home().display();
    let root = format!("root:x:0:0:root:{home}:/bin/sh\n");
    customer.write("/etc/passwd", &root).unwrap();
    let dropbear = packages::path_of("dropbear").unwrap();
    let line = format!(
        "set -e; chmod 755 .; umask 077; git init -q --bare team.git; cd team.git
        commit=$(git -c user.name=a -c user.email=a@b commit-tree -m x $(git mktree </dev/null))
        git update-ref refs/heads/main $commit; cd ..
        mkdir -p .ssh; ssh-keygen -q -t ed25519 -N '' -f client; cp client.pub .ssh/authorized_keys
        dropbearkey -t ed25519 -f host >/dev/null
        {} -s -E -r $PWD/host -P $PWD/dropbear.pid -p 203.0.113.1:22 </dev/null \
            >>dropbear.log 2>&1",
        dropbear.display()
    );
    customer.run(&line, LIMIT).unwrap().success().unwrap();
}

#[test]
fn git_over_ssh_is_redirected_and_verified() {
    let job = Job::with_config(CONFIG);
    start_server(&job);
    let home = job.rig.customer.sandbox().home().display().to_string();
    let list = |url: &str| {
        job.executor.run(
            &format!(
                "GIT_SSH_COMMAND='ssh -F /dev/null -i {home}/client -o BatchMode=yes -o \
                    StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null' git ls-remote {url}"
            ),
            LIMIT,
        )
    };
    let url = format!("ssh://root@{NAME}:7999{home}/team.git");
    until("the SSH server", LIMIT, || Ok(list(&url)?.status.success())).unwrap();
    let listed = list(&format!("root@{NAME}:{home}/team.git")).unwrap().success().unwrap();
    assert!(listed.stdout.contains("refs/heads/main"), "{}", listed.text());
    assert_eq!(job.rig.customer.leaked_packets().unwrap(), 0);

    for target in [&format!("{NAME}:22"), &format!("{NAME}:7999"), &url, &format!("git@{NAME}:x")] {
        let (json, finished) = ask(&job, &["verify", target]);
        assert_eq!(finished.status.code(), Some(0), "{target}: {}", finished.text());
        let step = &json["steps"][2];
        assert_eq!((&step["step"], &step["outcome"]), (&"ssh".into(), &"ok".into()), "{json}");
        assert!(step["detail"].as_str().unwrap().starts_with("SSH-2.0-dropbear"), "{json}");
        let command = json["command"].as_str().unwrap();
        assert!(command.starts_with("ssh -T -p 22 -o HostKeyAlias=git.internal"), "{command}");
    }
    let words = ["does not speak TLS", "SSH-2.0-dropbear", "ssh://git.internal.company.net:443"];
    assert_cause(&job, &["verify", &format!("https://{NAME}")], "not_tls", &words);

    let _banner = job.rig.customer.banner_server("203.0.113.1:2222".parse().unwrap(), "220 smtp");
    let target = format!("ssh://{NAME}:8022");
    assert_cause(&job, &["verify", &target], "not_ssh", &["port 2222", "HTTP/1.0 200"]);
}
