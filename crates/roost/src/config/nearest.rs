//! The nearest known word to one that is not known.

/// The known word that takes the fewest changes, if those are few.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (word.len() / 3).max(2);
    let rated = known.iter().map(|candidate| (distance(word, candidate), *candidate));
    let (changes, best) = rated.min()?;
    (changes <= allowed).then_some(best)
}

/// How many characters must be added, removed or changed to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_nonsense_none() {
        let known = ["edge.addr", "grpc.addr", "edge.workers"];
        assert_eq!(nearest("edge.adr", &known), Some("edge.addr"));
        assert_eq!(nearest("edge.worker", &known), Some("edge.workers"));
        assert_eq!(nearest("quite.different", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
