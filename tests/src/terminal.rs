//! A terminal of a given width, to see what a person sees.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// What stood on a terminal when a program had ended.
pub struct Seen {
    /// Its exit code.
    pub code: Option<i32>,
    /// All that came, colours and movements of the cursor too.
    pub raw: String,
}

impl Seen {
    /// The lines without colours, as long as nothing was drawn over something else.
    pub fn lines(&self) -> Vec<String> {
        console::strip_ansi_codes(&self.raw).lines().map(str::to_owned).collect()
    }

    /// Was anything coloured, or the cursor moved?
    pub fn is_plain(&self) -> bool {
        !self.raw.contains('\u{1b}')
    }

    /// The lines that the terminal had to break, since they were wider than it.
    pub fn wider_than(&self, columns: usize) -> Vec<String> {
        let wide = |line: &String| console::measure_text_width(line) > columns;
        self.lines().into_iter().filter(wide).collect()
    }
}

/// Runs a command, of which program, arguments, environment and directory count, on a terminal of this width.
pub fn run(command: &assert_cmd::Command, columns: u16) -> Seen {
    typed(command, columns, "")
}

/// The same, with this typed meanwhile. It is the session's own terminal, which reads for those in its foreground only.
pub fn typed(command: &assert_cmd::Command, columns: u16, keys: &str) -> Seen {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("its other end");
    unlockpt(&terminal).expect("its other end");
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).expect("its size");
    let name = ptsname(&terminal, Vec::new()).expect("its name").into_string().expect("text");
    let end = File::options().read(true).write(true).open(name).expect("its other end");
    let stream = || end.try_clone().expect("a stream");

    let mut copy = Command::new("setsid");
    copy.args(["--ctty", "timeout", "--foreground", "60"]).arg(command.get_program());
    copy.env_clear().args(command.get_args()).stdin(stream()).stdout(stream()).stderr(stream());
    copy.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        copy.current_dir(dir);
    }
    let mut child = copy.spawn().expect("a running program");
    // Only the program has it open now, so that reading ends with it.
    drop((copy, end));
    let mut terminal = File::from(terminal);
    terminal.write_all(keys.as_bytes()).expect("a terminal that takes keys");
    let mut raw = Vec::new();
    // When nobody has the other end any more, that is an error and not the end of a file.
    let _ended = terminal.read_to_end(&mut raw);
    let code = child.wait().expect("an ended program").code();
    Seen { code, raw: String::from_utf8_lossy(&raw).replace("\r\n", "\n") }
}
