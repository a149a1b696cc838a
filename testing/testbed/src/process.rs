//! Runs programs to their end within a time limit, and starts programs that outlive the calling
//! thread.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, set_parent_process_death_signal,
};

/// The result of a program that ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// Its standard output, undecodable bytes replaced.
    pub stdout: String,
    /// Its standard error, undecodable bytes replaced.
    pub stderr: String,
    /// Time from spawn to end.
    pub took: Duration,
}

impl Finished {
    /// Both streams, standard output first.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Fails unless the exit code is 0; the error has the output.
    pub fn success(self) -> Result<Self> {
        if !self.status.success() {
            bail!("{}: {}", self.status, self.text().trim());
        }
        Ok(self)
    }
}

/// Runs `command` to its end, or kills it after `limit` and fails. Standard input is empty.
pub fn finish(command: Command, limit: Duration) -> Result<Finished> {
    finish_with_input(command, b"", limit)
}

/// As [`finish`], with `input` as its standard input.
pub fn finish_with_input(mut command: Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("failed to start {name}"))?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input breaks the pipe; its exit code shows why.
        let _ = stdin.write_all(input);
    }
    let (status, killed) = wait_or_kill(&mut child, limit)?;
    let took = started.elapsed();
    if killed {
        bail!("{name} was still running after {limit:.1?} and was killed");
    }
    Ok(Finished { status, stdout: join(stdout), stderr: join(stderr), took })
}

/// Waits until `child` ends or `limit` is over; `None` in the latter case.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child without a pid")?;
    let watch = pidfd_open(pid, PidfdFlags::empty()).context("failed to open a pidfd")?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("failed to wait for a child")? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = Timespec::try_from(left).context("a time limit is out of range")?;
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("failed to wait for a child"),
        }
    }
}

/// Waits until `child` ends; after `limit` kills it and its descendants. Returns how it ended, and
/// whether it was killed.
pub(crate) fn wait_or_kill(child: &mut Child, limit: Duration) -> Result<(ExitStatus, bool)> {
    if let Some(status) = wait(child, limit)? {
        return Ok((status, false));
    }
    kill_tree(child.id());
    Ok((child.wait().context("failed to wait for a killed child")?, true))
}

/// Kills a process and its descendants. Each is stopped before its children are listed, so that it
/// starts no other.
pub fn kill_tree(pid: u32) {
    let signal = |signal| {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // A process that has just ended needs no signal.
            let _ = kill_process(pid, signal);
        }
    };
    signal(Signal::STOP);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children: String =
        tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill_tree);
    signal(Signal::KILL);
}

/// Spawns `command` from a thread that lives as long as this process.
///
/// `PR_SET_PDEATHSIG` fires when the *thread* that spawned a child ends: a child of a test's thread
/// would die with it.
pub fn spawn_lasting(command: Command) -> Result<Child> {
    type Job = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The caller is gone only after a panic; then the child dies with its cgroup.
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let name = command.get_program().to_string_lossy().into_owned();
    let (reply, answer) = channel();
    spawner.send((command, reply)).context("the spawning thread is gone")?;
    answer
        .recv()
        .context("the spawning thread is gone")?
        .with_context(|| format!("failed to start {name}"))
}

/// Makes the child get SIGKILL when the thread that spawned it ends: see [`spawn_lasting`].
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// Whether more threads want to run than there are cores (over the last minute): then a figure that
/// an idle machine reaches says nothing about the program.
#[must_use]
pub fn is_machine_busy() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default();
    thread::available_parallelism().is_ok_and(|cores| load > cores.get() as f64)
}

/// Polls `ready` until it returns true; fails with `what` after `limit`.
pub fn until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !ready()? {
        if Instant::now() > deadline {
            bail!("timed out after {limit:.1?}: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn collect<R: Read + Send + 'static>(stream: Option<R>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // Bytes before an error are still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn join(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_at_its_limit() {
        let mut sleep = Command::new("sleep");
        sleep.arg("30");
        let started = Instant::now();
        let error = finish(sleep, Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("still running"), "{error:#}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn input_is_passed_on_and_output_and_exit_code_come_back() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "cat; echo problem >&2; exit 3"]);
        let done = finish_with_input(shell, b"hello", Duration::from_secs(10)).unwrap();
        assert_eq!(
            (done.status.code(), done.stdout.as_str(), done.stderr.as_str()),
            (Some(3), "hello", "problem\n")
        );
        assert!(done.success().unwrap_err().to_string().contains("problem"));
    }

    #[test]
    fn a_lasting_child_outlives_the_calling_thread() {
        let mut child = thread::spawn(|| {
            let mut sleep = Command::new("sleep");
            sleep.arg("30");
            die_with_parent(&mut sleep);
            spawn_lasting(sleep).unwrap()
        })
        .join()
        .unwrap();
        assert!(wait(&mut child, Duration::from_millis(50)).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
