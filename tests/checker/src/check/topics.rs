//! Messages: nobody gets what nobody published, or what was published in another tenant; and what was
//! acknowledged at `QoS` 1 reaches those who had subscribed to exactly its topic.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::rules::{Report, Rule, label};
use crate::Kind;
use crate::history::{History, Name};

type Topic = (Name, Name);

#[derive(Default)]
struct Topics {
    /// The row of the first publication of each body.
    published: HashMap<Name, usize, RandomState>,
    /// Publications at `QoS` 1 by operation, until they are answered.
    open: HashMap<u64, usize, RandomState>,
    /// Those that were acknowledged, with the row that says so.
    accepted: Vec<(usize, usize)>,
    /// Who subscribed to a topic, in which row.
    subscribers: HashMap<Topic, Vec<(Name, usize)>, RandomState>,
    /// Who was told, or said, that messages are missing.
    excused: HashSet<(Topic, Name), RandomState>,
    /// Which subscriber got which body.
    got: HashSet<(Name, Name), RandomState>,
}

pub(super) fn check(history: &History, report: &mut Report) {
    let mut topics = Topics::default();
    for index in 0..history.len() {
        topics.take(history, index, report);
    }
    topics.check_lost(history, report);
}

// === impl Topics ===

impl Topics {
    fn take(&mut self, history: &History, index: usize, report: &mut Report) {
        let row = &history.rows()[index];
        let topic = (row.tenant, row.id);
        match row.kind {
            Kind::Publish => {
                self.published.entry(row.body).or_insert(index);
                if let Some(op) = row.op.filter(|_| row.qos > 0) {
                    self.open.insert(op, index);
                }
            }
            Kind::Ok => {
                let begun = row.op.and_then(|op| self.open.remove(&op));
                self.accepted.extend(begun.map(|begun| (begun, index)));
            }
            Kind::Subscribed => {
                self.subscribers.entry(topic).or_default().push((row.device, index));
            }
            Kind::Gap => {
                self.excused.insert((topic, row.device));
            }
            Kind::Message => self.message(history, index, report),
            _ => {}
        }
    }

    fn message(&mut self, history: &History, index: usize, report: &mut Report) {
        let row = &history.rows()[index];
        self.got.insert((row.device, row.body));
        let name = label(history, row);
        let Some(&origin) = self.published.get(&row.body) else {
            let what = format!("{name} got a message that nobody published");
            return report.add(Rule::NoPhantom, what, &[index]);
        };
        let publication = &history.rows()[origin];
        if publication.tenant != row.tenant {
            let what =
                format!("{name} got a message of tenant {}", history.text(publication.tenant));
            report.add(Rule::Tenants, what, &[origin, index]);
        } else if publication.id != row.id {
            let what = format!("{name} got a message of {}", history.text(publication.id));
            report.add(Rule::NoPhantom, what, &[origin, index]);
        }
    }

    fn check_lost(&self, history: &History, report: &mut Report) {
        let rows = history.rows();
        for &(begun, acked) in &self.accepted {
            let topic = (rows[begun].tenant, rows[begun].id);
            for &(subscriber, since) in self.subscribers.get(&topic).into_iter().flatten() {
                let missed = since < begun && !self.got.contains(&(subscriber, rows[begun].body));
                if missed && !self.excused.contains(&(topic, subscriber)) {
                    let who = history.text(subscriber);
                    let what =
                        format!("{who} never got what {} published", label(history, &rows[begun]));
                    report.add(Rule::Publications, what, &[since, begun, acked]);
                }
            }
        }
    }
}
