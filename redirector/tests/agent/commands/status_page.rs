//! The status page of the admin listener: who may see it, and a real browser in front of it.

use std::os::unix::fs::symlink;

use testbed::{
    ExecutorOptions,
    browser::{Browser, Device},
    process::until,
    topology::NODE_ADDRESS,
};

use crate::rig::{Job, LIMIT};

const CONFIG: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
ports = [\"443\"]
[[routes]]
source = \"refusing.internal.company.net\"
destination = \"203.0.113.1\"
";

/// Would run a script if a page took it for markup.
const HOSTILE_CGROUP: &str = "kubepods/pod<img src=x onerror=\"document.title='owned'\">";
/// At most 15 bytes, as the kernel cuts commands.
const HOSTILE_COMMAND: &str = "<b>&<i x='y'>";

const PHONE: Device = Device { width: 390, height: 844, is_mobile: true, is_dark: false };
const DESKTOP: Device = Device { width: 1280, height: 900, is_mobile: false, is_dark: false };

/// The lowest contrast of a visible text and its background, as WCAG computes it, with the text.
const LOWEST_CONTRAST: &str = r#"(() => {
    const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
        .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    let lowest = [99, ''];
    for (const node of document.querySelectorAll('body *')) {
        const text = [...node.childNodes].filter((child) => child.nodeType === 3)
            .map((child) => child.data.trim()).join('');
        if (!text || !node.offsetParent) continue;
        const [a, b] = [parse(getComputedStyle(node).color), behind(node)].map(light);
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < lowest[0]) lowest = [contrast, text];
    }
    return lowest;
})()"#;

/// The status code of a request from the node, with curl's further arguments.
fn status_of(job: &Job, path: &str, arguments: &str) -> String {
    let url = format!("http://127.0.0.1:9464{path}");
    let line = format!("curl -s --max-time 20 -o /dev/null -w '%{{http_code}}' {arguments} {url}");
    job.on_node(&line)
}

#[test]
fn only_this_host_sees_the_status_page() {
    let job = Job::with_config(&format!("[agent]\nadmin = \"0.0.0.0:9464\"\n{CONFIG}"));
    for path in ["/", "/page.js", "/page.css", "/icon.svg", "/status.json", "/events"] {
        assert_eq!(status_of(&job, path, "-H 'Host: rebound.example'"), "421", "{path}");
        let foreign = "-H 'Origin: http://elsewhere.example'";
        assert_eq!(status_of(&job, path, foreign), "403", "{path}");
        let at = format!("http://{NODE_ADDRESS}:9464{path}");
        let seen = job.shell(&format!("curl -s --max-time 20 -w ' %{{http_code}}' {at}"));
        assert!(seen.ends_with(" 403") && seen.contains("this host only"), "{path}: {seen}");
        assert_eq!(status_of(&job, path, "-X POST"), "405", "read-only: {path}");
    }
    let metrics = format!("curl -s --max-time 20 http://{NODE_ADDRESS}:9464/metrics");
    assert!(job.shell(&metrics).contains("# EOF"), "a scraper comes from anywhere");
    let head = job.on_node("curl -s --max-time 20 -D - -o /dev/null http://127.0.0.1:9464/");
    let head = head.to_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(!head.contains("access-control") && !head.contains("unsafe"), "{head}");
    let text =
        job.on_node(&format!("curl -s --max-time 20 http://{NODE_ADDRESS}:9464/status.json"));
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["routes"][0]["source"], "artifactory.internal.company.net", "{text}");
    assert_eq!(status["routes"][0]["backends"][0]["state"], "eligible", "{text}");
}

/// Connects from the hostile cgroup with the hostile command, to a load balancer and to nothing.
fn connect_as_stranger(job: &Job) {
    let program = job.executor.sandbox().home().join(HOSTILE_COMMAND);
    if !program.exists() {
        symlink("/bin/bash", &program).unwrap();
    }
    for source in ["artifactory", "refusing"] {
        let mut command = job.executor.command(&program);
        // It lives until its event is named, and does not become `sleep`.
        let line = format!("exec 3<>/dev/tcp/{source}.internal.company.net/443; sleep 2; true");
        command.args(["-c", &line]);
        testbed::process::finish(command, LIMIT).unwrap();
    }
}

#[test]
fn a_browser_shows_routes_backends_and_live_events() {
    let pod = ExecutorOptions { cgroup: Some(HOSTILE_CGROUP.into()), ..ExecutorOptions::pod("x") };
    let job = Job::in_pods(CONFIG, pod, |_| vec![]);
    let mut browser = Browser::start(job.rig.node.sandbox()).unwrap();
    browser.set_device(DESKTOP).unwrap();
    browser.open("http://localhost:9464/").unwrap();
    let has = |words: &str| format!("document.body.innerText.includes({words:?})");
    browser.wait_for(&has("203.0.113.8")).unwrap();
    browser.wait_for("document.querySelector('#stream').textContent === 'live'").unwrap();
    connect_as_stranger(&job);
    browser.wait_for(&has(HOSTILE_COMMAND)).unwrap();
    browser.wait_for(&has("onerror=\"document.title='owned'\"")).unwrap();
    browser.wait_for(&has("refused")).unwrap();
    until("the backend to be shown as ejected", 3 * LIMIT, || {
        connect_as_stranger(&job);
        Ok(browser.evaluate(&has("connects fail"))? == true)
    })
    .unwrap();
    browser
        .wait_for("[...document.querySelectorAll('polyline')].some((l) => l.points.length > 1)")
        .unwrap();
    let markup = "document.querySelectorAll('tbody img, tbody b, tbody i').length";
    assert_eq!(browser.evaluate(markup).unwrap(), 0, "foreign text became markup");
    assert_ne!(browser.evaluate("document.title").unwrap(), "owned");
    let mut backgrounds = vec![];
    for device in [PHONE, DESKTOP] {
        for is_dark in [false, true] {
            browser.set_device(Device { is_dark, ..device }).unwrap();
            let fits = "document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.evaluate(fits).unwrap(), true, "{device:?} is too narrow");
            let lowest = browser.evaluate(LOWEST_CONTRAST).unwrap();
            assert!(lowest[0].as_f64() >= Some(4.5), "dark: {is_dark}, contrast: {lowest}");
            let colour = "getComputedStyle(document.body).backgroundColor";
            backgrounds.push(browser.evaluate(colour).unwrap().to_string());
            let rows = "document.querySelectorAll('#routes tbody tr').length";
            assert_eq!(browser.evaluate(rows).unwrap(), 2);
        }
    }
    assert!(backgrounds[0] != backgrounds[1] && backgrounds[0] == backgrounds[2]);
    let unlabelled =
        "[...document.querySelectorAll('input')].filter((i) => !i.labels.length).length";
    assert_eq!(browser.evaluate(unlabelled).unwrap(), 0, "a control has no label");
    let complaints = browser.complaints().unwrap();
    assert!(complaints.is_empty(), "{complaints:?}");
}
