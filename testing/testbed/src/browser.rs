//! A real Chromium without a window, controlled through the DevTools protocol on two pipes.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::agent::pass;
use crate::isolation::sandbox::Sandbox;
use crate::{packages, process};

/// Longest time for one answer of the browser, which starts in a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A window's size and colours.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Whether it is a phone.
    pub is_mobile: bool,
    /// Whether the user prefers dark pages.
    pub is_dark: bool,
}

/// A browser with one page; killed when dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    requests: PipeWriter,
    messages: Receiver<Value>,
    sent: u64,
    session: Option<String>,
    complaints: Vec<String>,
}

impl Browser {
    /// Starts it in the network and with the files of `sandbox`.
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        let (their_requests, requests) = std::io::pipe().context("failed to make a pipe")?;
        let (answers, their_answers) = std::io::pipe().context("failed to make a pipe")?;
        let mut command = sandbox.command(packages::path_of("chromium-headless-shell")?);
        // Its own sandbox needs another user than root; the pages are ours.
        command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]);
        command.args(["--remote-debugging-pipe", "--font-render-hinting=none"]);
        command.arg(format!("--user-data-dir={}", sandbox.folder("chromium")?.display()));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        pass(&mut command, vec![their_requests.as_raw_fd(), their_answers.as_raw_fd()]);
        let child = process::spawn_lasting(command)?;
        drop((their_requests, their_answers));
        let mut browser = Self {
            child,
            requests,
            messages: read_messages(answers),
            sent: 0,
            session: None,
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.call(domain, json!({}))?;
        }
        Ok(browser)
    }

    /// Shows pages as this device does.
    pub fn set_device(&mut self, device: Device) -> Result<()> {
        let Device { width, height, is_mobile, is_dark } = device;
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_mobile,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))?;
        Ok(())
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({"url": url}))?;
        if let Some(error) = opened["errorText"].as_str() {
            bail!("failed to open {url}: {error}");
        }
        let loaded = "document.readyState === 'complete' && location.href !== 'about:blank'";
        // An error means that the page before it has just gone.
        process::until("the page", LIMIT, || Ok(self.evaluate(loaded).is_ok_and(|it| it == true)))
    }

    /// The value of a JavaScript expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let request =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", request)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("{expression}: {exception}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true in the page.
    pub fn wait_for(&mut self, condition: &str) -> Result<()> {
        let waited = process::until(condition, LIMIT, || {
            Ok(self.evaluate(&format!("Boolean({condition})"))? == true)
        });
        waited.map_err(|error| {
            let text = self.evaluate("document.body.innerText").unwrap_or_default();
            error.context(format!("the page has {text}; {:?}", self.complaints))
        })
    }

    /// What the window shows, as a PNG file's content.
    pub fn screenshot(&mut self) -> Result<Vec<u8>> {
        let taken = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let data = taken["data"].as_str().context("the browser sent no picture")?;
        BASE64_STANDARD.decode(data).context("the picture is not base64")
    }

    /// What the page's console has reported so far: errors, exceptions, what a policy has blocked.
    pub fn complaints(&mut self) -> Result<&[String]> {
        self.evaluate("0")?;
        Ok(&self.complaints)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.sent += 1;
        let mut request = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        write!(self.requests, "{request}\0").with_context(|| format!("failed to send {method}"))?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self
                .messages
                .recv_timeout(left)
                .with_context(|| format!("chromium has not answered {method}"))?;
            if message["id"] == self.sent {
                return match message.get("error") {
                    Some(error) => bail!("{method}: {error}"),
                    None => Ok(message["result"].clone()),
                };
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        let complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => &parameters["exceptionDetails"],
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => parameters,
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                &parameters["entry"]["text"]
            }
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        process::kill_tree(self.child.id());
        let _ = self.child.wait();
    }
}

/// Reads messages until the browser ends.
fn read_messages(pipe: PipeReader) -> Receiver<Value> {
    let (sender, messages) = channel();
    thread::spawn(move || {
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let Ok(message) = serde_json::from_slice(&message) else { return };
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    messages
}
