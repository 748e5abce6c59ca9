//! One viewer's visit: which video, which choices, and when. Pure.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Serialize, Serializer};

use crate::base::time::rfc3339;

/// 2021-04-14T10:00:00Z and 16:45:00Z, in milliseconds since the epoch.
const OPENS: i64 = 1_618_394_400_000;
const CLOSES: i64 = 1_618_418_700_000;
/// The last session starts a while before the end.
const LAST_START: i64 = CLOSES - 480_000;
/// How busy each quarter of an hour is: a premiere at 11:30, lunch, the afternoon, another at 15:00.
const RUSH: [u64; 26] =
    [5, 6, 6, 7, 8, 9, 22, 17, 12, 11, 12, 13, 12, 10, 9, 8, 8, 9, 10, 12, 21, 16, 13, 12, 11, 9];
/// How long after its turn a session can start, in sixteenths of a turn.
const JITTER: u64 = 48;

/// The number of the first viewer's random stream. Those of sessions begin at 0.
const VIEWERS: u64 = 1 << 62;

const DEVICES: [(&str, &str, u64); 6] = [
    ("phone", "Android 11", 34),
    ("phone", "iOS 14.4", 27),
    ("desktop", "Windows 10", 17),
    ("desktop", "macOS 11.2", 8),
    ("tablet", "iPadOS 14.4", 8),
    ("tv", "Tizen 5.5", 6),
];
const COUNTRIES: [(&str, u64); 12] = [
    ("US", 24),
    ("DE", 14),
    ("GB", 12),
    ("BR", 10),
    ("IN", 9),
    ("FR", 7),
    ("JP", 6),
    ("MX", 5),
    ("PL", 4),
    ("SE", 3),
    ("NL", 3),
    ("ZA", 3),
];
const APPS: [(&str, u64); 5] = [("5.2.1", 55), ("5.2.0", 20), ("5.1.4", 14), ("5.0.9", 7), ("4.18.2", 4)];
const MOBILE: [(&str, u64); 2] = [("wifi", 58), ("cellular", 42)];
const AT_HOME: [(&str, u64); 2] = [("wifi", 70), ("ethernet", 30)];
const BITRATES: [u32; 5] = [800, 1600, 2800, 4500, 8000];
const CHOICES: [&str; 8] = ["stage", "backstage", "rooftop", "rain", "crowd", "solo", "duet", "credits"];

/// A viewer's possible actions in the middle of a video, and how often each one happens.
const ACTIONS: [(Action, u64); 9] = [
    (Action::ChooseBranch, 34),
    (Action::Progress, 24),
    (Action::Pause, 9),
    (Action::Seek, 9),
    (Action::Like, 6),
    (Action::Share, 2),
    (Action::Skip, 6),
    (Action::QualityChange, 5),
    (Action::VideoEnd, 5),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    SessionStart,
    Play,
    ChooseBranch,
    Progress,
    Pause,
    Resume,
    Seek,
    Like,
    Share,
    Skip,
    QualityChange,
    VideoEnd,
    SessionEnd,
}

#[derive(Serialize)]
struct Event<'a> {
    event_id: &'a str,
    timestamp: &'a str,
    user_id: Id,
    session_id: &'a str,
    video_id: Id,
    action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'static str>,
    position_ms: u32,
    bitrate_kbps: u32,
    device: Device,
    country: &'static str,
    network: &'static str,
}

#[derive(Clone, Copy, Serialize)]
struct Device {
    #[serde(rename = "type")]
    kind: &'static str,
    os: &'static str,
    app: &'static str,
}

/// A letter and a number.
#[derive(Clone, Copy)]
struct Id(char, u64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}{:06}", self.0, self.1))
    }
}

/// Everything that all sessions share.
pub(super) struct Service {
    seed: [u8; 32],
    records: u64,
    sessions: u64,
    viewers: u64,
    videos: u64,
}

impl Service {
    pub(super) fn new(seed: u64, records: u64) -> Service {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut service = Service {
            seed: bytes,
            records,
            sessions: 0,
            viewers: 200 + records / 60,
            videos: 60 + records / 1000,
        };
        let mut planned = 0;
        while planned < records {
            planned += u64::from(Draw::new(&service, service.sessions).session_length());
            service.sessions += 1;
        }
        service
    }

    /// All sessions, in the order of their earliest possible start. Together they have `records` events.
    pub(super) fn sessions(&self) -> impl Iterator<Item = Session> {
        let mut left = self.records;
        (0..self.sessions).map(move |number| {
            let session = Session::new(self, number, left);
            left -= u64::from(session.length);
            session
        })
    }

    /// When the `turn`th of `turns` sessions starts. More sessions start while the day is busy.
    fn start(turn: u64, turns: u64) -> i64 {
        let total: u64 = RUSH.iter().sum();
        let (mut passed, turns) = (0, turns.max(1));
        let slot = (LAST_START - OPENS).unsigned_abs() / RUSH.len() as u64;
        for (index, rush) in (0..).zip(RUSH) {
            // Count in 1/turns of the day's total, so that nothing is rounded.
            let into = u128::from(turn) * u128::from(total);
            let (from, to) =
                (u128::from(passed) * u128::from(turns), u128::from(passed + rush) * u128::from(turns));
            if into < to {
                let share = (into - from) * u128::from(slot) / (to - from);
                return OPENS + (index * slot).cast_signed() + i64::try_from(share).unwrap_or(0);
            }
            passed += rush;
        }
        LAST_START
    }
}

/// A visit that is going on.
pub(super) struct Session {
    pub number: u64,
    /// The earliest possible start, in milliseconds since the epoch like all times here.
    pub earliest: i64,
    /// When its next event happens.
    pub due: i64,
    /// The number of the next event, from 0.
    pub sequence: u32,
    length: u32,
    draw: Draw,
    id: String,
    viewer: Viewer,
    video: u64,
    position: u32,
    bitrate: usize,
    action: Action,
    is_offline: bool,
}

struct Viewer {
    id: u64,
    device: Device,
    country: &'static str,
    network: &'static str,
}

impl Session {
    fn new(service: &Service, number: u64, left: u64) -> Session {
        let mut draw = Draw::new(service, number);
        let length = u64::from(draw.session_length()).min(left);
        let earliest = Service::start(number, service.sessions);
        let latest = Service::start((number * 16 + JITTER).min(service.sessions * 16), service.sessions * 16);
        let due = earliest + draw.below((latest - earliest).unsigned_abs() + 1).cast_signed();
        let viewer = Viewer::new(service, draw.popular(service.viewers, 4));
        Session {
            number,
            earliest,
            due,
            sequence: 0,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            id: format!("{:016x}", draw.0.next_u64()),
            viewer,
            video: draw.popular(service.videos, 1),
            position: 0,
            bitrate: draw.index(BITRATES.len()),
            action: Action::SessionStart,
            is_offline: false,
            draw,
        }
    }

    /// The next event as a line, and how many milliseconds late it arrives.
    pub(super) fn event(&mut self, service: &Service) -> (Vec<u8>, i64) {
        let branch = (self.action == Action::ChooseBranch).then(|| CHOICES[self.draw.index(CHOICES.len())]);
        let event = Event {
            event_id: &self.draw.uuid(),
            timestamp: &instant(self.due),
            user_id: Id('u', self.viewer.id),
            session_id: &self.id,
            video_id: Id('v', self.video),
            action: self.action,
            branch,
            position_ms: self.position,
            bitrate_kbps: BITRATES[self.bitrate],
            device: self.viewer.device,
            country: self.viewer.country,
            network: self.viewer.network,
        };
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        let late_by = self.late_by();
        self.choose_next(service);
        (line, late_by)
    }

    /// A phone that loses its network sends its events when it is online again.
    fn late_by(&mut self) -> i64 {
        self.is_offline = match self.is_offline {
            true => self.draw.below(100) < 60,
            false => self.viewer.network == "cellular" && self.draw.below(100) < 2,
        };
        match self.is_offline {
            true => 2000 + self.draw.below(60_000).cast_signed(),
            false => 0,
        }
    }

    fn choose_next(&mut self, service: &Service) {
        self.action = match self.action {
            _ if self.sequence + 2 >= self.length => Action::SessionEnd,
            Action::SessionStart => Action::Play,
            Action::Pause => Action::Resume,
            Action::VideoEnd | Action::Skip => {
                self.video = self.draw.popular(service.videos, 1);
                self.position = 0;
                Action::Play
            }
            _ => self.draw.weighted(&ACTIONS),
        };
    }

    /// Moves on to the next event, and returns whether there is one.
    pub(super) fn advance(&mut self) -> bool {
        self.sequence += 1;
        if self.sequence >= self.length {
            return false;
        }
        let left = i64::from(self.length - self.sequence);
        let pause = self.pause().min((CLOSES - 1 - self.due) / left).max(0);
        self.due += pause;
        match self.action {
            Action::Play | Action::Resume | Action::SessionStart => {}
            Action::Seek => self.position = u32::try_from(self.draw.below(240_000)).unwrap_or(0),
            Action::QualityChange => self.bitrate = self.draw.index(BITRATES.len()),
            _ => self.position = self.position.saturating_add(u32::try_from(pause).unwrap_or(0)),
        }
        true
    }

    /// Milliseconds until the next event; most are short, some long.
    fn pause(&mut self) -> i64 {
        let upto = [400, 3000, 9000, 20_000, 60_000]
            [self.draw.weighted(&[(0, 12), (1, 30), (2, 38), (3, 17), (4, 3)])];
        (60 + self.draw.below(upto)).cast_signed()
    }
}

impl Viewer {
    /// The same viewer has the same device and country in each session.
    fn new(service: &Service, id: u64) -> Viewer {
        let mut draw = Draw::new(service, VIEWERS + id);
        let (kind, os) = draw.weighted(&DEVICES.map(|(kind, os, weight)| ((kind, os), weight)));
        let app = draw.weighted(&APPS);
        let network = match kind {
            "phone" | "tablet" => draw.weighted(&MOBILE),
            _ => draw.weighted(&AT_HOME),
        };
        Viewer { id, device: Device { kind, os, app }, country: draw.weighted(&COUNTRIES), network }
    }
}

/// Draws from one random stream, without floats: those would differ between machines.
struct Draw(ChaCha8Rng);

impl Draw {
    fn new(service: &Service, stream: u64) -> Draw {
        let mut random = ChaCha8Rng::from_seed(service.seed);
        random.set_stream(stream);
        Draw(random)
    }

    /// A number from 0 up to `end`, without `end`.
    fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.0.next_u64()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    fn weighted<T: Copy>(&mut self, choices: &[(T, u64)]) -> T {
        let mut at = self.below(choices.iter().map(|(_, weight)| weight).sum());
        for (choice, weight) in choices {
            if at < *weight {
                return *choice;
            }
            at -= weight;
        }
        choices[0].0
    }

    /// A number from 1 to `count`. Low numbers are drawn most, about as in Zipf's law: the first `2^head` numbers
    /// together are as likely as the next `2^(head+1)`, and so on.
    fn popular(&mut self, count: u64, head: u32) -> u64 {
        let skipped = (1 << head) - 1;
        let last = count + skipped;
        let octave = u64::from(head) + self.below(u64::from(last.ilog2() - head) + 1);
        let (from, to) = (1 << octave, (2 << octave).min(last + 1));
        from + self.below(to - from) - skipped
    }

    /// How many events a session has. This must be its first draw.
    fn session_length(&mut self) -> u32 {
        let (from, width) = self.weighted(&[((3, 10), 50), ((10, 30), 35), ((40, 80), 15)]);
        u32::try_from(from + self.below(width)).unwrap_or(1)
    }

    /// A UUID of version 4.
    fn uuid(&mut self) -> String {
        let (high, low) = (self.0.next_u64(), self.0.next_u64());
        let low = low >> 2 | 1 << 63;
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

fn instant(millis: i64) -> String {
    // Always write three digits, as a client does.
    match rfc3339(millis) {
        text if millis % 1000 == 0 => text.replace('Z', ".000Z"),
        text => text,
    }
}
