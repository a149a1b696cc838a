//! The whole terminal, taken and given back.

use std::io::{self, Write};

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor,
        event::{self, KeyCode, KeyEventKind, KeyModifiers},
        execute, terminal,
    },
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};
use tokio::sync::mpsc;

use super::page::{self, Page, Tone};
use crate::cli::io::Paint;

/// What the person at the keyboard wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Quit,
    NextOrder,
    /// By so many lines.
    Scroll(isize),
    /// The terminal has another size.
    Redraw,
}

/// The alternate screen in raw mode, until it is dropped.
pub(super) struct Screen<'a> {
    terminal: Terminal<CrosstermBackend<&'a mut dyn Write>>,
    view: View,
}

impl<'a> Screen<'a> {
    pub(super) fn open(out: &'a mut dyn Write, paint: Paint) -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let terminal = Terminal::new(CrosstermBackend::new(out))?;
        let mut screen = Self { terminal, view: View { colour: paint.0, above: 0 } };
        execute!(screen.terminal.backend_mut(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    pub(super) fn scroll(&mut self, by: isize) {
        self.view.above = self.view.above.saturating_add_signed(by);
    }

    /// In columns.
    pub(super) fn width(&self) -> io::Result<usize> {
        Ok(self.terminal.size()?.width.into())
    }

    /// Draws what differs from what stands there. `bar` is the last line.
    pub(super) fn draw(&mut self, page: &Page, bar: &str) -> io::Result<()> {
        let view = &mut self.view;
        self.terminal.draw(|frame| view.render(frame, page, bar)).map(drop)
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // Nobody reads an error here.
        let _ = execute!(self.terminal.backend_mut(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// How a page is shown.
struct View {
    colour: bool,
    /// Lines of the middle that are above the screen.
    above: usize,
}

impl View {
    /// What is too long is cut in the middle part, and there it is scrolled.
    fn render(&mut self, frame: &mut Frame<'_>, page: &Page, bar: &str) {
        let [screen, last] =
            Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
        let room = usize::from(screen.height);
        let middle = room.saturating_sub(page.head.len() + page.foot.len()).max(1);
        self.above = self.above.min(page.rows.len().saturating_sub(middle));
        let rows = page.rows.iter().skip(self.above).take(middle);
        let lines = page.head.iter().chain(rows).chain(&page.foot).take(room);
        let lines: Vec<Line<'_>> = lines.map(|line| self.line(line)).collect();
        frame.render_widget(Paragraph::new(lines), screen);
        frame.render_widget(Line::styled(bar, self.style(Tone::Dim)), last);
    }

    fn line<'p>(&self, line: &'p page::Line) -> Line<'p> {
        line.pieces().map(|(tone, text)| Span::styled(text, self.style(tone))).collect()
    }

    fn style(&self, tone: Tone) -> Style {
        if !self.colour {
            return Style::default();
        }
        match tone {
            Tone::Plain => Style::default(),
            Tone::Strong => Style::default().add_modifier(Modifier::BOLD),
            Tone::Dim => Style::default().add_modifier(Modifier::DIM),
            Tone::Good => Style::default().fg(Color::Green),
            Tone::Warn => Style::default().fg(Color::Yellow),
            Tone::Bad => Style::default().fg(Color::Red),
        }
    }
}

/// What is typed, from a thread of its own, which ends with the process.
pub(super) fn inputs() -> mpsc::Receiver<Input> {
    let (sender, inputs) = mpsc::channel(8);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let Some(input) = input(&event) else { continue };
            if sender.blocking_send(input).is_err() {
                return;
            }
        }
    });
    inputs
}

fn input(event: &event::Event) -> Option<Input> {
    let key = match event {
        event::Event::Key(key) if key.kind != KeyEventKind::Release => key,
        event::Event::Resize(..) => return Some(Input::Redraw),
        _ => return None,
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Input::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Input::Quit),
        KeyCode::Char('s') => Some(Input::NextOrder),
        KeyCode::Up | KeyCode::Char('k') => Some(Input::Scroll(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Input::Scroll(1)),
        KeyCode::PageUp => Some(Input::Scroll(-20)),
        KeyCode::PageDown => Some(Input::Scroll(20)),
        KeyCode::Home => Some(Input::Scroll(isize::MIN)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;

    /// A page of two lines, so many rows, and one line.
    fn page(rows: usize) -> Page {
        let line = |text: &str| page::Line::one(Tone::Bad, text);
        Page {
            head: vec![line("head"), line("columns")],
            rows: (0..rows).map(|row| line(&format!("row {row}"))).collect(),
            foot: vec![line("foot")],
        }
    }

    /// What stands on a screen of this size.
    fn drawn(view: &mut View, page: &Page, (width, height): (u16, u16)) -> (Vec<String>, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.render(frame, page, "q quits")).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| {
            (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned()
        };
        let coloured = buffer
            .content()
            .iter()
            .any(|cell| cell.fg != Color::Reset || !cell.modifier.is_empty());
        ((0..height).map(row).collect(), coloured)
    }

    #[test]
    fn only_the_middle_scrolls() {
        let mut view = View { colour: true, above: 0 };
        assert_eq!(
            drawn(&mut view, &page(9), (10, 7)),
            (
                ["head", "columns", "row 0", "row 1", "row 2", "foot", "q quits"]
                    .map(str::to_owned)
                    .to_vec(),
                true
            )
        );
        view.above = 4;
        assert_eq!(drawn(&mut view, &page(9), (10, 7)).0[2..5], ["row 4", "row 5", "row 6"]);
        view.above = usize::MAX;
        assert_eq!(drawn(&mut view, &page(9), (10, 7)).0[2..5], ["row 6", "row 7", "row 8"]);
        assert_eq!(view.above, 6, "the next key scrolls from here");
    }

    #[test]
    fn a_terminal_of_any_size_shows_what_fits() {
        let mut view = View { colour: false, above: 3 };
        assert_eq!(
            drawn(&mut view, &page(9), (3, 2)),
            (vec!["hea".to_owned(), "q q".into()], false)
        );
        assert_eq!(
            drawn(&mut view, &page(0), (20, 6)).0,
            ["head", "columns", "foot", "", "", "q quits"]
        );
        for size in [(1, 1), (500, 1), (1, 500)] {
            drawn(&mut view, &page(40), size);
        }
    }

    #[test]
    fn keys_mean_what_the_help_says() {
        let key = |code| input(&event::Event::Key(event::KeyEvent::new(code, KeyModifiers::NONE)));
        assert_eq!([KeyCode::Char('q'), KeyCode::Esc].map(key), [Some(Input::Quit); 2]);
        assert_eq!(
            (key(KeyCode::Char('s')), key(KeyCode::Down), key(KeyCode::Up)),
            (Some(Input::NextOrder), Some(Input::Scroll(1)), Some(Input::Scroll(-1)))
        );
        assert_eq!(key(KeyCode::Char('x')), None);
        let interrupt = event::KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(
            (input(&event::Event::Key(interrupt)), input(&event::Event::Resize(9, 9))),
            (Some(Input::Quit), Some(Input::Redraw))
        );
    }
}
