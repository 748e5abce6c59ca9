//! A real Chromium, moved by its own debugging protocol over a pipe: a test clicks, drags, types and touches as a person
//! does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::until;

/// A browser with one page. It ends when this is dropped.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: String,
    number: u64,
    _dir: TempDir,
}

impl Browser {
    /// Opens the page in a window of `width` pixels. `None` if no browser is installed.
    pub(crate) fn open(url: &str, width: u32) -> Option<Browser> {
        let installed = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
            let mut version = Command::new(name);
            version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        });
        let Some(name) = installed else {
            eprintln!("skipped: no browser is installed (apt-get install chromium)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        // Chromium takes commands from descriptor 3 and writes answers to descriptor 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", name])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
            .args(["--remote-debugging-pipe", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", dir.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let commands = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut browser = Browser { child, commands, answers, session: String::new(), number: 0, _dir: dir };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        browser.call("Page.enable", json!({}));
        browser.resize(width);
        browser.go(url);
        Some(browser)
    }

    /// Does a command of the protocol, and returns its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("sent");
        self.commands.flush().expect("sent");
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).expect("an answer");
            assert!(!answer.is_empty(), "the browser ended before it answered {method}");
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            // Everything else is an event.
            if answer["id"] == self.number {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// Makes the window this wide. Below 500 pixels it is a phone, with a finger for a mouse.
    pub(crate) fn resize(&mut self, width: u32) {
        let is_phone = width < 500;
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        self.call("Emulation.setTouchEmulationEnabled", json!({ "enabled": is_phone }));
    }

    /// The value of a JavaScript expression on the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text that a reader sees in the elements of this CSS selector, one line for each.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let all =
            format!("[...document.querySelectorAll({})].map(e => e.innerText).join('\\n')", json!(selector));
        self.value(&all).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the expression is true.
    pub(crate) fn wait(&mut self, expression: &str) {
        let guarded =
            format!("(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()");
        let mut tries = 0;
        until(|| {
            tries += 1;
            if tries % 200 == 0 {
                eprintln!("waiting for {expression}");
            }
            self.value(&guarded) == true
        });
    }

    /// Waits until the elements of this selector show this text.
    pub(crate) fn wait_for(&mut self, selector: &str, text: &str) {
        let shown = format!("[...document.querySelectorAll({})]", json!(selector));
        self.wait(&format!(
            "{shown}.some(e => e.checkVisibility() && e.innerText.includes({}))",
            json!(text)
        ));
    }

    /// The middle of the first element of this selector, after scrolling to it, and its size.
    fn place(&mut self, selector: &str) -> [f64; 4] {
        let found = self.value(&format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{ block: 'center' }});
            const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width, r.height]; }})()",
            json!(selector)
        ));
        serde_json::from_value(found).expect("a place")
    }

    fn mouse(&mut self, kind: &str, x: f64, y: f64, clicks: u32) {
        let (button, buttons) = if kind == "mouseMoved" { ("none", 0) } else { ("left", 1) };
        let event = json!({ "type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": clicks });
        self.call("Input.dispatchMouseEvent", event);
    }

    pub(crate) fn click(&mut self, selector: &str) {
        let [x, y, ..] = self.place(selector);
        self.mouse("mouseMoved", x, y, 0);
        self.mouse("mousePressed", x, y, 1);
        self.mouse("mouseReleased", x, y, 1);
    }

    pub(crate) fn double_click(&mut self, selector: &str) {
        let [x, y, ..] = self.place(selector);
        self.mouse("mouseMoved", x, y, 0);
        for clicks in 1..=2 {
            self.mouse("mousePressed", x, y, clicks);
            self.mouse("mouseReleased", x, y, clicks);
        }
    }

    /// Drags with the mouse across an element, from one share of its width to another.
    pub(crate) fn drag(&mut self, selector: &str, from: f64, to: f64) {
        let [x, y, width, _] = self.place(selector);
        let at = |share: f64| x + (share - 0.5) * width;
        self.mouse("mouseMoved", at(from), y, 0);
        self.mouse("mousePressed", at(from), y, 1);
        for step in 1..=8 {
            let x = at(from + (to - from) * f64::from(step) / 8.0);
            let event = json!({ "type": "mouseMoved", "x": x, "y": y, "button": "left", "buttons": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
        self.mouse("mouseReleased", at(to), y, 1);
    }

    /// Moves fingers across an element, each from one share of its width to another.
    pub(crate) fn swipe(&mut self, selector: &str, fingers: &[(f64, f64)]) {
        let [x, y, width, _] = self.place(selector);
        let points = |step: u32| -> Value {
            let at = |(from, to): &(f64, f64)| from + (to - from) * f64::from(step) / 8.0;
            fingers
                .iter()
                .enumerate()
                .map(|(id, finger)| json!({ "x": x + (at(finger) - 0.5) * width, "y": y, "id": id }))
                .collect()
        };
        self.call("Input.dispatchTouchEvent", json!({ "type": "touchStart", "touchPoints": points(0) }));
        for step in 1..=8 {
            self.call(
                "Input.dispatchTouchEvent",
                json!({ "type": "touchMove", "touchPoints": points(step) }),
            );
        }
        self.call("Input.dispatchTouchEvent", json!({ "type": "touchEnd", "touchPoints": [] }));
    }

    /// Presses a key by its name in the browser, as in `Escape` or `ArrowLeft`.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key }));
        }
    }

    /// Chooses an option of a list by its value.
    pub(crate) fn choose(&mut self, selector: &str, value: &str) {
        self.value(&format!(
            "(() => {{ const e = document.querySelector({}); e.value = {};
            e.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()",
            json!(selector),
            json!(value)
        ));
    }

    pub(crate) fn dark(&mut self, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// If `SCREENSHOTS` names a directory, writes a picture of the whole page there.
    pub(crate) fn picture(&mut self, name: &str) {
        let Some(dir) = std::env::var_os("SCREENSHOTS") else { return };
        let answer =
            self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        let bytes = BASE64.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(Path::new(&dir).join(name), bytes).expect("written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
