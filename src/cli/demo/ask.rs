//! Asks on the terminal, without keeping anything else from going on.

use tokio::sync::oneshot;

/// Reads the next line of standard input; the answer is whether it says yes. Nobody there (end of input) is no.
pub fn yes() -> oneshot::Receiver<bool> {
    let (answer, answered) = oneshot::channel();
    // A thread of its own: reading a terminal cannot be cancelled, and must not hold up the end of the program.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line).is_ok();
        let _ = answer.send(read && is_yes(&line));
    });
    answered
}

/// The answer is yes already.
pub fn unattended() -> oneshot::Receiver<bool> {
    let (answer, answered) = oneshot::channel();
    answer.send(true).expect("the receiver is here");
    answered
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes" | "д" | "да")
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_clear_yes_counts() {
        for (line, yes) in
            [("y\n", true), ("Да\n", true), ("", false), ("\n", false), ("yep\n", false), ("n\n", false)]
        {
            assert_eq!(super::is_yes(line), yes, "{line:?}");
        }
    }
}
