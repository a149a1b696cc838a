//! `redirector top` in a terminal, emulated by a pty.

use testbed::process;

use crate::rig::{Job, LIMIT, binary};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = [\"203.0.113.7\", \"203.0.113.8\"]
[[routes]]
source = \"refusing.internal.company.net\"
destination = \"203.0.113.1\"
";

/// Runs a command in a terminal of 100 columns and 30 rows, takes each step when its words appear,
/// and prints everything that was drawn.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, struct, sys, termios, time
steps = eval(sys.argv[1])
pid, master = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    os.execv(sys.argv[2], sys.argv[2:])
def size(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
size(30, 100)
drawn, seen, deadline = b'', 0, time.time() + 60
while time.time() < deadline:
    if not select.select([master], [], [], 0.2)[0]: continue
    try: piece = os.read(master, 65536)
    except OSError: break
    if not piece: break
    drawn += piece
    if steps and steps[0][0].encode() in drawn[seen:]:
        seen = len(drawn)
        step = steps.pop(0)[1]
        if isinstance(step, tuple): size(*step)
        else: os.write(master, step.encode())
sys.stdout.buffer.write(drawn)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if not steps else f'never drawn: {steps}')
"#;

/// Runs `top` in that terminal; returns its output and exit status.
fn run_in_terminal(job: &Job, steps: &str, arguments: &[&str]) -> process::Finished {
    let mut command = job.rig.node.command("/usr/bin/python3");
    command.args(["-c", TERMINAL, steps]).arg(binary()).arg("top").args(arguments);
    process::finish(command, LIMIT * 2).unwrap()
}

#[test]
fn top_follows_keys_and_size_and_restores_the_terminal() {
    let job = Job::with_config(CONFIG);
    for _ in 0..3 {
        job.shell("bash -c 'exec 3<>/dev/tcp/refusing.internal.company.net/443; true'");
    }
    // Unchanged cells are not drawn again, so each step waits for single words of the one before:
    // sort, resize, quit.
    let steps = "[('LAST', 's'), ('failing', (12, 60)), ('quits', 'q')]";
    let finished = run_in_terminal(&job, steps, &["--interval", "0.5"]).success().unwrap();
    let drawn = &finished.stdout;
    let (enters, leaves) = (drawn.find("\x1b[?1049h"), drawn.rfind("\x1b[?1049l"));
    assert!(enters.is_some() && enters < leaves, "{drawn:?}");
    assert!(drawn.ends_with("\x1b[?25h"), "the cursor is back: {drawn:?}");
    for words in ["artifactory.internal.company.net", "203.0.113.8", "refused", "busiest"] {
        assert!(drawn.contains(words), "{words}: {drawn:?}");
    }
    assert!(
        drawn.contains("\x1b[1m") || drawn.contains("\x1b[32m") || drawn.contains(";5;2m"),
        "colours: {drawn:?}"
    );
}

#[test]
fn top_works_without_colours_and_without_an_agent() {
    let mut job = Job::with_config(CONFIG);
    job.agent.sigkill().unwrap();
    let mut command = job.rig.node.command("/usr/bin/env");
    command
        .args(["NO_COLOR=1", "/usr/bin/python3", "-c", TERMINAL, "[('203.0.113.7', 'q')]"])
        .arg(binary())
        .arg("top");
    let drawn = process::finish(command, LIMIT * 2).unwrap().success().unwrap().stdout;
    assert!(
        drawn.contains("answers;") && drawn.contains("artifactory.internal.company.net"),
        "{drawn:?}"
    );
    for code in ["\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[38;5;"] {
        assert!(!drawn.contains(code), "{code:?}: {drawn:?}");
    }
    let piped = job.cli(&["top", "--interval", "0.1"]);
    assert!(piped.status.success() && !piped.stdout.contains('\x1b'), "{}", piped.text());
}
